"""Where the lists go after the swap: each sink gets the current version once.

What a sink has got last is noted beside the versions. A sink that fails, or a night that is
killed between sinks, leaves no note, so the next night delivers what is current then. A delivery
can be repeated: it replaces what an interrupted one left.
"""

import os
import subprocess
from collections.abc import Iterable
from contextlib import closing
from itertools import islice

from models.config import Sink
from models.credentials import masked
from models.embeddings.text_batches import to_matrix
from models.errors import BadInput
from models.schemas import KEYS, VECTOR
from tasks.publishing.manifest import Manifest, folder_of, waiting
from tasks.publishing.mlflow_sink import to_mlflow
from tasks.publishing.recommendation_lookup import answers
from tasks.publishing.tracker_sinks import to_tensorboard, to_wandb
from tasks.storage.artifacts import read_parquet, replacing

_AT_ONCE = 1000


def deliver(manifest: Manifest, sinks: Iterable[Sink]) -> list[str]:
    """Give every sink the version that it has not got yet; what failed, in words."""
    failures = []
    for sink in sinks:
        note = folder_of(manifest.experiment) / ".delivered" / sink.digest()
        waits = waiting(manifest)[:1] if sink.kind == "mlflow" else []
        state = " ".join(each.version for each in (manifest, *waits))
        if note.is_file() and note.read_text() == state:
            continue
        try:
            _DELIVERIES[sink.kind](manifest, sink)
            with replacing(note) as temporary:
                temporary.write_text(state)
        except Exception as error:
            why = masked(str(error), os.environ.get(sink.password_env or "", ""))
            failures.append(f"sink {sink.kind} did not take {manifest.version}: {why}")
    return failures


def _to_command(manifest: Manifest, sink: Sink) -> None:
    """Call a program with the version's folder; it must end with 0."""
    called = [*sink.command, str(manifest.folder)]
    subprocess.run(called, check=True, timeout=sink.seconds, stdin=subprocess.DEVNULL)


def _to_redis(manifest: Manifest, sink: Sink) -> None:
    """Write the version's hash, then name it current, then remove all but the one before."""
    from redis import Redis

    prefix = f"llmkt:{manifest.experiment}"
    new = f"{prefix}:{manifest.version}"
    password = os.environ.get(sink.password_env) if sink.password_env else None
    client = Redis.from_url(str(sink.url), password=password, socket_timeout=sink.seconds)
    with closing(client):
        listed = answers(manifest)
        while some := list(islice(listed, _AT_ONCE)):
            client.hset(new, items=[part for pair in some for part in pair])
        before = client.get(f"{prefix}:current")
        assert not isinstance(before, str)  # this client decodes nothing
        client.set(f"{prefix}:current", manifest.version)
        kept = {manifest.version, "current", before.decode() if before else None}
        for name in client.scan_iter(f"{prefix}:*"):
            if name.decode().removeprefix(f"{prefix}:") not in kept:
                client.delete(name)


def _to_qdrant(manifest: Manifest, sink: Sink) -> None:
    """Write each side's vectors as a collection, let its alias name it, remove older ones."""
    from qdrant_client import QdrantClient, models

    secret = os.environ.get(sink.password_env) if sink.password_env else None
    address = str(sink.url)
    where = {"url": address, "api_key": secret} if "://" in address else {"path": address}
    with closing(QdrantClient(timeout=int(sink.seconds), **where)) as client:
        for side, key in KEYS.items():
            if f"{side}.parquet" not in manifest.files:
                raise BadInput(f"the model has no vectors of {side}. Set another kind of sink.")
            table = read_parquet(manifest.handle(f"{side}.parquet"))
            vectors, alias = to_matrix(table[VECTOR]), f"llmkt-{manifest.experiment}-{side}"
            aliases, new = client.get_aliases().aliases, f"{alias}-{manifest.version}"
            kept = {new, *(each.collection_name for each in aliases if each.alias_name == alias)}
            size = models.VectorParams(size=vectors.shape[1], distance=models.Distance.DOT)
            client.delete_collection(new)
            client.create_collection(new, vectors_config=size)
            known = [{key: name} for name in table[key].to_pylist()]
            client.upload_collection(new, vectors, known, range(len(known)), wait=True)
            named = models.CreateAlias(collection_name=new, alias_name=alias)
            client.update_collection_aliases([models.CreateAliasOperation(create_alias=named)])
            for other in client.get_collections().collections:
                if other.name.startswith(f"{alias}-") and other.name not in kept:
                    client.delete_collection(other.name)


_DELIVERIES = {
    "redis": _to_redis,
    "qdrant": _to_qdrant,
    "mlflow": to_mlflow,
    "tensorboard": to_tensorboard,
    "wandb": to_wandb,
    "command": _to_command,
}
