"""A bundle: all that a third party needs to check an experiment's numbers, in one zip."""

import hashlib
import io
import json
from pathlib import Path
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import BadInput
from models.schemas import TEXT
from tasks.results.queries import reading, require_experiment
from tasks.storage.artifacts import PROJECT_ROOT, data_dir, replacing

MANIFEST = "manifest.json"
TABLES = {
    "runs": "experiment = $name AND is_current",
    "points": "experiment = $name",
    "contrasts": "experiment = $name",
    "epochs": "run_id IN (SELECT run_id FROM runs WHERE experiment = $name AND is_current)",
    "user_metrics": "run_id IN (SELECT run_id FROM runs WHERE experiment = $name AND is_current)",
}


def pack(experiment: str, bundle: Path, texts: bool = False) -> list[str]:
    """Write an experiment's bundle; the names of artifacts that are gone and so not in it.

    It holds the rows of the results, with the configurations, splits, rankings, embeddings,
    records of the profiles (with `texts` also these), prompts, lock file, report, and a manifest
    of digests.
    """
    with reading() as connection:
        require_experiment(connection, experiment)
        tables = {
            name: connection.sql(
                f"FROM {name} WHERE {own}", params={"name": experiment}
            ).to_arrow_table()
            for name, own in TABLES.items()
        }
    content = {f"results/{name}.parquet": _parquet(table) for name, table in tables.items()}
    named = {
        path for row in tables["runs"]["artifacts"].to_pylist() for path in json.loads(row).values()
    }
    for file in map(data_dir().joinpath, sorted({*named, f"reports/{experiment}.html"})):
        if file.is_file():
            content[file.relative_to(data_dir()).as_posix()] = file.read_bytes()
    for name in [name for name in content if name.startswith("artifacts/profiles/")]:
        content[name] = content[name] if texts else _without_texts(content[name])
    for file in (*PROJECT_ROOT.glob("prompts/*.j2"), PROJECT_ROOT / "requirements.lock"):
        content[file.relative_to(PROJECT_ROOT).as_posix()] = file.read_bytes()
    digests = {name: hashlib.sha256(held).hexdigest() for name, held in content.items()}
    content[MANIFEST] = json.dumps(digests, indent=1).encode()
    with replacing(bundle) as temporary, ZipFile(temporary, "w", ZIP_DEFLATED) as archive:
        for name, held in content.items():
            archive.writestr(name, held)
    return sorted(named - content.keys())


def opened(bundle: Path) -> dict[str, bytes]:
    """Read a bundle's files by name; BadInput for a file that is no bundle, or damaged."""
    try:
        with ZipFile(bundle) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        digests = json.loads(content.pop(MANIFEST))
    except (OSError, BadZipFile, KeyError, ValueError) as error:
        raise BadInput(f"{bundle}: no bundle, or damaged ({error}). Fetch it again.") from error
    for name in sorted(digests.keys() | content.keys()):
        if digests.get(name) != hashlib.sha256(content.get(name, b"")).hexdigest():
            raise BadInput(
                f"{bundle}: damaged, {name} is not what the manifest says. Fetch it again."
            )
    return content


def _parquet(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def _without_texts(content: bytes) -> bytes:
    """Profiles with a digest in place of each text."""
    table = pq.read_table(pa.BufferReader(content))
    texts = table[TEXT].to_pylist()
    digests = [text and hashlib.sha256(text.encode()).hexdigest() for text in texts]
    place = table.column_names.index(TEXT)
    return _parquet(table.set_column(place, TEXT, pa.array(digests, pa.string())))
