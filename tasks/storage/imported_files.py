"""Files made elsewhere, as raw artifacts and as tables, and whose rows they hold."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect.logging import get_run_logger

from models.arrow import Ints, positions
from models.config import Columns, Embeddings, Profiles, Side
from models.dataset.delimited_text import Dialect, read, records
from models.dataset.record_blocks import all_records, require_columns
from models.errors import BadInput
from models.schemas import HISTORY_COUNT, HISTORY_SHA256, KEYS, TEXT, noun
from tasks.storage.artifacts import Handle, write_file
from tasks.storage.text_files import text_source

_HISTORY = {HISTORY_SHA256: pa.string(), HISTORY_COUNT: pa.int32()}
_DIALECTS = {".csv": Dialect(","), ".tsv": Dialect("\t")}
SHOWN = 10
"""How many ids a message lists."""
_ID_KINDS = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)

Vectors = tuple[pa.Array, Any, pa.Table | None]
"""Ids, string (rows,); one vector per row, unchecked; the histories' records, if any."""


def profile_file(config: Profiles) -> Handle | None:
    """Write the imported profiles as a raw artifact; None for other providers.

    Doing this before the cached stage makes the stage's key depend on what the file holds.

    Raises:
        BadInput: if there is no such file or its format is not known.
    """
    if config.path is None or config.provider != "import":
        return None
    return _artifact(config.path, "profiles.path", (*_DIALECTS, ".json", ".jsonl", ".parquet"))


def vector_files(config: Embeddings) -> dict[str, Handle]:
    """Write imported vectors likewise: `vectors`, and `ids` if these are in a file of their own."""
    if config.path is None:
        return {}
    formats = (".parquet", ".npy", ".pt", ".json")
    handles = {"vectors": _artifact(config.path, "embeddings.path", formats)}
    file = Path(config.path).expanduser()
    beside = [file.with_name(f"{file.stem}.ids{suffix}") for suffix in (".txt", ".json")]
    ids = config.ids or next((str(path) for path in beside if path.is_file()), None)
    if ids is not None and file.suffix in (".npy", ".pt"):
        handles["ids"] = _artifact(ids, "embeddings.ids", (".txt", ".json"))
    elif file.suffix == ".npy":
        raise BadInput(
            f"embeddings.ids: {file} holds no ids and neither {beside[0].name} nor "
            f"{beside[1].name} is beside it. Write one id a line into the former."
        )
    return handles


def _artifact(path: str, key: str, formats: tuple[str, ...]) -> Handle:
    file = Path(path).expanduser()
    if file.suffix not in formats:
        raise BadInput(
            f"{key}: {file} is not {', '.join(formats[:-1])} or {formats[-1]}. Convert it."
        )
    if not file.is_file():
        raise BadInput(f"{key}: {file} does not exist. Correct the path.")
    return write_file("raw", file.suffix, file)


def read_profiles(handle: Handle, columns: Columns, source: str, side: Side = "users") -> pa.Table:
    """Read imported profiles; `source` is the configuration's key and the file's name.

    Returns:
        `user_id` (`item_id`) and `text` (string), and where the file has them
        `history_sha256` (string) and `history_count` (int32); rows in the file's order.

    Raises:
        BadInput: naming the file, the place in it and the fix.
    """
    path, wanted = handle.verify(), [columns.ids(side), columns.text]
    if path.suffix in _DIALECTS:
        text, dialect = text_source(path, source), _DIALECTS[path.suffix]
        blocks = read(text, dialect, source, wanted, list(_HISTORY), f"{_section(source)}.columns")
        table = all_records(blocks, source, wanted)
        found = dict(zip(table.column_names, table.columns, strict=True))
    elif path.suffix == ".parquet":
        found = _parquet_columns(path, wanted, source)
    else:
        found = _json_columns(path, wanted, source)
    return _typed(found, dict(zip(wanted, [KEYS[side], TEXT], strict=True)), source)


def read_vectors(
    files: dict[str, Handle], columns: Columns, source: str, side: Side = "users"
) -> Vectors:
    """Read imported vectors; see `models.embeddings.text_batches.stacked` for their check.

    `files` has `vectors` and, for bare matrices, `ids`; `source` is as in `read_profiles`.

    Raises:
        BadInput: naming the file, the place in it and the fix.
    """
    path, wanted = files["vectors"].verify(), [columns.ids(side), columns.embedding]
    if path.suffix in (".npy", ".pt"):
        ids = _ids(files["ids"].verify(), source) if "ids" in files else None
        found, vectors = _tensors(path, ids, source)
        return _id_texts(found, source), vectors, None
    if path.suffix == ".json":
        texts, vectors = list(_json_columns(path, wanted, source).values())[:2]
        return texts, vectors, None
    table = _parquet_columns(path, wanted, source)
    typed = _typed(table, {wanted[0]: KEYS[side]}, source)
    return typed[KEYS[side]].combine_chunks(), list(table[wanted[1]].to_numpy()), typed


def _section(source: str) -> str:
    """The configuration's section that names the file."""
    return source.partition(".")[0]


# Rows of users and items


def matched_rows(
    ids: pa.Array, subjects: pa.Array, source: str, config: Profiles | Embeddings, side: Side
) -> Ints:
    """Find the row of each user (item) of the training part in a file with the given ids.

    Returns:
        int64 (n_subjects,): -1 where the file has none. Rows of unknown ids are left out, with a
        warning, if `config` says so.

    Raises:
        BadInput: for an empty id, ids that occur more than once, and unknown ones unless dropped.
    """
    word = noun(KEYS[side])
    empty = np.flatnonzero(np.asarray(pc.fill_null(pc.equal(ids, ""), True)))
    if len(empty):
        raise BadInput(f"{source}, row {empty[0] + 1}: the {word} id is empty. Fill it in.")
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if len(repeated):
        raise BadInput(
            f"{source}: {len(repeated)} of {len(counts)} {word} ids occur more than "
            f"once: {_listed(repeated)}. Keep one row per {word}."
        )
    strangers = ids.filter(pc.invert(pc.is_in(ids, subjects)))
    if len(strangers) and config.unknown_users == "error":
        raise BadInput(
            f"{source}: {len(strangers)} of {len(ids)} {word} ids are not in the training "
            f"part: {_listed(strangers)}. Correct them (ids are raw tokens, 007 is not 7), "
            f"remove them, or set {_section(source)}.unknown_users to drop."
        )
    if len(strangers):
        get_run_logger().warning("%s: %d unknown %ss dropped", source, len(strangers), word)
    return positions(subjects, ids)


def require_few_missing(
    missing: pa.Array, n: int, source: str, config: Profiles | Embeddings, side: Side, why: str = ""
) -> None:
    """Warn of those of n users (items) without anything, and why; BadInput above `max_missing`."""
    if not len(missing):
        return
    summary = (
        f"{source}: {len(missing)} of {n} {noun(KEYS[side])}s ({len(missing) / n:.1%}) have "
        f"nothing in it: {_listed(missing)}"
    )
    if len(missing) > config.max_missing * n:
        raise BadInput(
            f"{summary}; {_section(source)}.max_missing allows {config.max_missing:.1%}.{why} "
            "Supply them, or raise it."
        )
    get_run_logger().warning("%s; they are left out of the transfer.%s", summary, why)


def _listed(ids: pa.Array) -> str:
    more = ", …" if len(ids) > SHOWN else ""
    return ", ".join(map(str, ids[:SHOWN].to_pylist())) + more


# Tables


def parquet_table(path: Path, source: str) -> pa.Table:
    """Read a Parquet file; BadInput where it is none."""
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise BadInput(f"{source} is no Parquet file: {why}. Write it again.") from error


def _parquet_columns(path: Path, wanted: list[str], source: str) -> dict[str, Any]:
    table = parquet_table(path, source)
    require_columns(table.column_names, wanted, source, f"{_section(source)}.columns")
    return dict(zip(table.column_names, table.columns, strict=True))


def _typed(columns: dict[str, Any], names: dict[str, str], source: str) -> pa.Table:
    """The columns of ids and texts under the project's names, and the histories' records."""
    kinds = dict.fromkeys(names, pa.string())
    kinds |= {name: kind for name, kind in _HISTORY.items() if name in columns}
    try:
        table = pa.table({name: columns[name] for name in kinds})
        id_kind = table.schema.types[0]
        if not any(is_kind(id_kind) for is_kind in _ID_KINDS):
            raise pa.ArrowTypeError(f"ids must be text or whole numbers, not {id_kind}")
        typed = table.cast(pa.schema(list(kinds.items())))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise BadInput(
            f"{source}: a column holds values of the wrong kind ({error}). Convert them."
        ) from error
    return typed.rename_columns([names.get(name, name) for name in kinds])


# JSON


class _Pairs(list[tuple[str, Any]]):
    """A JSON object that keeps keys which occur more than once."""


def _parsed(text: str | bytes, place: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{place} is not valid JSON: {error}. Correct it.") from error


def _json_columns(path: Path, wanted: list[str], source: str) -> dict[str, Any]:
    """Columns of a list of objects, or of one object a line, or of a mapping; ids as text."""
    if path.suffix == ".jsonl":
        content = [_parsed(line, f"{source}, line {row}") for row, line in _lines(path, source)]
    else:
        content = _parsed(path.read_bytes(), source)
    if isinstance(content, _Pairs):
        content = [_Pairs(zip(wanted, pair, strict=True)) for pair in content]
    if not isinstance(content, list) or not all(isinstance(row, _Pairs) for row in content):
        raise BadInput(
            f"{source}: it must hold a mapping of ids, or a list of objects with one user or item "
            "each. Write it so."
        )
    rows = [dict(row) for row in content]
    names = list(dict.fromkeys(name for row in rows for name in row))
    require_columns(names, wanted, source, f"{_section(source)}.columns")
    kept = [*wanted, *(name for name in _HISTORY if name in names)]
    columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in kept}
    return {**columns, wanted[0]: _id_texts(columns[wanted[0]], source)}


def _lines(path: Path, source: str) -> list[tuple[int, str]]:
    """The lines that are not blank, with their numbers."""
    batches = records(text_source(path, source), Dialect(quoted=False), source)
    return [pair for batch in batches for pair in zip(*batch.to_pydict().values(), strict=True)]


def _id_texts(values: list[Any], source: str) -> pa.Array:
    """Ids as text; whole numbers as they are written."""
    for number, value in enumerate(values, 1):
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise BadInput(
                f"{source}, row {number}: the id {value!r} is no text or whole number. Correct it."
            )
    return pa.array([str(value) for value in values], pa.string())


def _ids(path: Path, source: str) -> list[Any]:
    file = f"the ids of {source}"
    if path.suffix == ".txt":
        return [line for _, line in _lines(path, file)]
    ids = _parsed(path.read_bytes(), file)
    if not isinstance(ids, list) or isinstance(ids, _Pairs):
        raise BadInput(f"{file} must be one JSON list. Write it so.")
    return ids


# Tensors


def _tensors(path: Path, ids: list[Any] | None, source: str) -> tuple[list[Any], Any]:
    """A matrix with its ids, or for .pt also a mapping id → vector."""
    content = _loaded(path, source)
    if isinstance(content, dict) and ids is None:
        if {"ids", "embeddings"} <= content.keys():
            ids, content = list(content["ids"]), content["embeddings"]
        else:
            ids, content = list(content), list(content.values())
    if ids is None:
        raise BadInput(
            f"{source} holds no ids. Save {{'ids': [...], 'embeddings': tensor}} or a mapping "
            "of ids, or set embeddings.ids."
        )
    try:
        vectors = list(map(_plain, content)) if isinstance(content, list) else _plain(content)
        found = len(vectors)
    except TypeError as error:
        raise BadInput(f"{source} holds no table of vectors. Save one row per id.") from error
    if found != len(ids):
        raise BadInput(
            f"{source} holds {found} vectors, but there are {len(ids)} ids. Give each its id."
        )
    return ids, vectors


def _loaded(path: Path, source: str) -> Any:
    """Neither loader executes anything that the file says."""
    import pickle

    import torch

    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (ValueError, OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise BadInput(
            f"{source} could not be read: {str(error).splitlines()[0]}. Save numbers and tensors "
            "only, no other objects."
        ) from error


def _plain(value: Any) -> Any:
    """A tensor as numpy; anything else as it is."""
    return value.detach().float().numpy() if hasattr(value, "detach") else value
