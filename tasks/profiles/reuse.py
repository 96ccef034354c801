"""Earlier profiles of users who have hardly changed, which spare the stage writing new ones."""

from dataclasses import replace

import pyarrow as pa
from prefect.logging import get_logger

from models.profiles.provenance import provenance
from models.profiles.reuse import keep
from models.schemas import USER
from tasks.profiles.outputs import Previous, Profiled
from tasks.profiles.request import Basis, Provider, Request, sha256_of
from tasks.storage.artifacts import read_parquet, write_parquet


def write_changed(
    provider: Provider, request: Request, basis: Basis, previous: Previous | None
) -> Profiled:
    """Write the profiles of users who have changed; the others keep what an earlier run wrote.

    Where the provider's `basis` is another now, no earlier profile is kept. Kept and new profiles
    come as one, with everything that proves what they saw.
    """
    config = {k: v for k, v in request.config.identity().items() if k != "max_missing"}
    settings = sha256_of([config, basis.writer])[:16]
    everyone = {"seen": request.train, "settings": settings}
    if previous is None or previous.settings != settings:
        return provider.write(request).model_copy(update=everyone)
    earlier, train = read_parquet(previous.profiles), read_parquet(request.train)
    kept = keep(earlier, read_parquet(previous.seen), train, basis.history, previous.min_new)
    users = frozenset(kept.profiles[USER].to_pylist())
    get_logger("profiles").info("%d of %d earlier profiles are kept", len(users), earlier.num_rows)
    written = provider.write(replace(request, kept=users))
    if not users:
        return written.model_copy(update=everyone)
    new = read_parquet(written.profiles).replace_schema_metadata(None)
    table = pa.concat_tables([new, kept.profiles]).sort_by(USER)
    inputs = {**request.inputs, "written": written.profiles}
    facts = {"settings": settings}
    proved = provenance(kept.profiles, kept.proved)
    return written.model_copy(
        update={
            "profiles": write_parquet("profiles", table, inputs, facts),
            "seen": write_parquet("profiles", kept.seen, inputs, {**facts, "part": "seen"}),
            "provenance": written.provenance if proved == "train-only" else proved,
            "kept": len(users),
            **facts,
        }
    )
