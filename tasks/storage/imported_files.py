"""Files made elsewhere, taken in by content and read: profiles, vectors, ids."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from models.config import Columns, Embeddings, Profiles, Side
from models.errors import BadInput
from models.schemas import HISTORY_COUNT, HISTORY_SHA256, KEYS, TEXT, noun
from tasks.storage.artifacts import Handle, write_bytes

_HISTORY = {HISTORY_SHA256: pa.string(), HISTORY_COUNT: pa.int32()}
_PROFILE_FORMATS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
_VECTOR_FORMATS = (".parquet", ".npy", ".pt", ".json")

_ID_KINDS = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)

Vectors = tuple[pa.Array, Any, pa.Table | None]
"""Ids, string (rows,); one vector per row, unchecked; the histories' records, if any."""


def take_in_profiles(config: Profiles) -> Handle | None:
    """The imported profiles as a raw artifact, named by content; None for other providers.

    Doing this before the cached stage makes the stage's key depend on what the file holds.

    Raises:
        BadInput: if there is no such file or its format is not known.
    """
    if config.path is None:
        return None
    return _take_in(config.path, "profiles.path", _PROFILE_FORMATS)


def take_in_embeddings(config: Embeddings) -> dict[str, Handle]:
    """Like `take_in_profiles`: `vectors`, and `ids` if they are in a file of their own."""
    if config.path is None:
        return {}
    taken = {"vectors": _take_in(config.path, "embeddings.path", _VECTOR_FORMATS)}
    file = Path(config.path).expanduser()
    beside = [file.with_name(f"{file.stem}.ids{suffix}") for suffix in (".txt", ".json")]
    ids = config.ids or next((str(path) for path in beside if path.is_file()), None)
    if ids is not None and file.suffix in (".npy", ".pt"):
        taken["ids"] = _take_in(ids, "embeddings.ids", (".txt", ".json"))
    elif file.suffix == ".npy":
        raise BadInput(
            f"embeddings.ids: {file} holds no ids and neither {beside[0].name} nor "
            f"{beside[1].name} is beside it; write one id a line into the former"
        )
    return taken


def _take_in(path: str, key: str, formats: tuple[str, ...]) -> Handle:
    file = Path(path).expanduser()
    if file.suffix not in formats:
        raise BadInput(f"{key}: {file} is not {', '.join(formats[:-1])} or {formats[-1]}")
    if not file.is_file():
        raise BadInput(f"{key}: {file} does not exist")
    return write_bytes("raw", file.suffix, file.read_bytes())


def read_profiles(handle: Handle, columns: Columns, source: str, side: Side = "users") -> pa.Table:
    """Read imported profiles.

    Returns:
        `user_id` (`item_id`) and `text` (string), and where the file has them
        `history_sha256` (string) and `history_count` (int32); rows in the file's order.

    Raises:
        BadInput: naming the file and what is wrong in it.
    """
    path, ids = handle.verify(), columns.ids(side)
    if path.suffix in (".json", ".jsonl"):
        table = _json_table(path, ids, columns.text, source)
    elif path.suffix == ".parquet":
        table = _parquet(path, source)
    else:
        table = _separated(path, source)
    return _named(table, {ids: KEYS[side], columns.text: TEXT}, source)


def read_vectors(
    files: dict[str, Handle], columns: Columns, source: str, side: Side = "users"
) -> Vectors:
    """Read imported vectors; see `models.embeddings.import_checks.matrix_of` for their check.

    Raises:
        BadInput: naming the file and what is wrong in it.
    """
    path = files["vectors"].verify()
    if path.suffix in (".npy", ".pt"):
        ids = _ids(files["ids"].verify(), source) if "ids" in files else None
        found, vectors = _tensors(path, ids, source)
        return _as_ids(found, source), vectors, None
    if path.suffix == ".json":
        table = _json_rows(path, columns.ids(side), columns.embedding, source)
        return _as_ids(table[0], source), table[1], None
    table = _parquet(path, source)
    if columns.embedding not in table.column_names:
        raise BadInput(_lacks(source, columns.embedding, table.column_names, "embedding"))
    vectors = _list_column(table[columns.embedding])
    names = {columns.ids(side): KEYS[side]}
    named = _named(table.drop_columns([columns.embedding]), names, source)
    return named[KEYS[side]].combine_chunks(), vectors, named


def _separated(path: Path, source: str) -> pa.Table:
    """A comma- or tab-separated file, every column as text: ids keep their leading zeros."""
    parse = csv.ParseOptions(
        delimiter="\t" if path.suffix == ".tsv" else ",", newlines_in_values=True
    )
    try:
        with csv.open_csv(path, parse_options=parse) as stream:
            names = stream.schema.names
        convert = csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True
        )
        return csv.read_csv(path, parse_options=parse, convert_options=convert)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise BadInput(f"{source} could not be read: {error}; mend or remove that row") from error


def _parquet(path: Path, source: str) -> pa.Table:
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(f"{source} is no Parquet file: {error}") from error


class _Pairs(list[tuple[str, Any]]):
    """A JSON object that keeps keys which occur more than once."""


def _json(path: Path, source: str) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".jsonl":
            lines = enumerate(text.splitlines(), 1)
            return [_parsed(line, f"{source}, line {n}") for n, line in lines if line.strip()]
    except UnicodeDecodeError as error:
        raise BadInput(f"{source} is not UTF-8 text: {error}") from error
    return _parsed(text, source)


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        raise BadInput(f"{place} is not valid JSON: {error}") from error


def _json_rows(path: Path, owner: str, value: str, source: str) -> tuple[list[Any], list[Any]]:
    """Ids and values of a mapping id → value, or of a list of objects."""
    content = _json(path, source)
    if isinstance(content, _Pairs):
        return [key for key, _ in content], [item for _, item in content]
    records = _records(content, source)
    for number, record in enumerate(records, 1):
        for name in (owner, value):
            if name not in record:
                raise BadInput(f"{source}, row {number}: " + _lacks("it", name, list(record)))
    return [record[owner] for record in records], [record[value] for record in records]


def _json_table(path: Path, owner: str, text: str, source: str) -> pa.Table:
    content = _json(path, source)
    if isinstance(content, _Pairs):
        ids = _as_ids([key for key, _ in content], source)
        columns: dict[str, Any] = {owner: ids, text: [item for _, item in content]}
    else:
        records = _records(content, source)
        names = dict.fromkeys(name for record in records for name in record)
        columns = {name: [record.get(name) for record in records] for name in names}
        if owner in columns:
            columns[owner] = _as_ids(columns[owner], source)
    kept = {name: columns[name] for name in (owner, text, *_HISTORY) if name in columns}
    try:
        return pa.table(kept)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise BadInput(f"{source}: a column mixes kinds of values: {error}") from error


def _records(content: Any, source: str) -> list[dict[str, Any]]:
    if not isinstance(content, list) or not all(isinstance(row, _Pairs) for row in content):
        raise BadInput(
            f"{source} must hold a mapping of ids, or a list of objects with one user or item each"
        )
    return [dict(row) for row in content]


def _tensors(path: Path, ids: list[Any] | None, source: str) -> tuple[list[Any], Any]:
    """A matrix with its ids, or for .pt also a mapping id → vector."""
    content = _load(path, source)
    if isinstance(content, dict) and ids is None:
        if {"ids", "embeddings"} <= content.keys():
            ids, content = list(content["ids"]), content["embeddings"]
        else:
            ids, content = list(content), list(content.values())
    if ids is None:
        raise BadInput(
            f"{source} holds no ids; save {{'ids': [...], 'embeddings': tensor}} or a mapping "
            "of ids, or set embeddings.ids"
        )
    try:
        rows = [_plain(row) for row in content] if isinstance(content, list) else _plain(content)
        found = len(rows)
    except TypeError as error:
        raise BadInput(f"{source} holds no table of vectors") from error
    if found != len(ids):
        raise BadInput(f"{source} holds {found} vectors, but there are {len(ids)} ids")
    return ids, rows


def _load(path: Path, source: str) -> Any:
    """Neither loader executes anything that the file says."""
    import pickle

    import torch

    readers: dict[str, Callable[[Path], Any]] = {
        ".npy": lambda file: np.load(file, allow_pickle=False),
        ".pt": lambda file: torch.load(file, map_location="cpu", weights_only=True),
    }
    try:
        return readers[path.suffix](path)
    except (ValueError, OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise BadInput(
            f"{source} could not be read: {str(error).splitlines()[0]}; it must hold numbers and "
            "tensors only, no other objects"
        ) from error


def _plain(value: Any) -> Any:
    """A tensor as numpy; anything else as it is."""
    return value.detach().float().numpy() if hasattr(value, "detach") else value


def _ids(path: Path, source: str) -> list[Any]:
    if path.suffix == ".txt":
        return path.read_text(encoding="utf-8").splitlines()
    ids = _json(path, f"the ids of {source}")
    if not isinstance(ids, list) or isinstance(ids, _Pairs):
        raise BadInput(f"the ids of {source} must be one JSON list")
    return ids


def _as_ids(values: list[Any], source: str) -> pa.Array:
    """Ids as text; whole numbers are taken as they are written."""
    for number, value in enumerate(values, 1):
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise BadInput(f"{source}, row {number}: the id {value!r} is no text or number")
    return pa.array([str(value) for value in values], pa.string())


def _list_column(column: pa.ChunkedArray) -> Any:
    """Vectors of one width as float (rows, width), others one by one."""
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    kind = array.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not lists and not pa.types.is_fixed_size_list(kind):
        return array.to_pylist()
    widths = pc.unique(pc.list_value_length(array))
    flat = array.flatten()
    if array.null_count or len(widths) != 1 or flat.null_count:
        return array.to_pylist()
    return flat.to_numpy(zero_copy_only=False).reshape(len(array), widths[0].as_py())


def _named(table: pa.Table, names: dict[str, str], source: str) -> pa.Table:
    """The wanted columns under the project's names, as text."""
    for name, meaning in names.items():
        if name not in table.column_names:
            raise BadInput(_lacks(source, name, table.column_names, noun(meaning)))
    history = {name: kind for name, kind in _HISTORY.items() if name in table.column_names}
    try:
        columns = {
            next(iter(names.values())): _id_column(table[next(iter(names))], source),
            **{meaning: table[name].cast(pa.string()) for name, meaning in list(names.items())[1:]},
            **{name: table[name].cast(kind) for name, kind in history.items()},
        }
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadInput(f"{source}: a column holds values of the wrong kind: {error}") from error
    return pa.table(columns)


def _id_column(column: pa.ChunkedArray, source: str) -> pa.ChunkedArray:
    kind = column.type
    if not any(check(kind) for check in _ID_KINDS):
        raise BadInput(f"{source}: ids must be text or whole numbers, not {kind}")
    return column.cast(pa.string())


def _lacks(place: str, name: str, has: list[str], option: str | None = None) -> str:
    fix = f"; set the section's columns.{option} to the right one" if option else ""
    return f"{place} has no column {name}, only {', '.join(map(str, has))}{fix}"
