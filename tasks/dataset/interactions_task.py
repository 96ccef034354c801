"""Stage *interactions*: files of any format in, Parquet artifacts out.

Plain atomic files are read here, as ever, so that nothing made from them changes; all else, and
those that are too large to be held in memory, by `tasks.dataset.ingestion`.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
from prefect.logging import get_run_logger

from models.config import Dataset
from models.errors import BadInput
from models.schemas import (
    GENRES,
    INTERACTIONS,
    ITEM,
    ITEMS,
    RATING,
    TIMESTAMP,
    TITLE,
    USER,
    YEAR,
    demographics_schema,
)
from tasks.dataset.file_reading import by_role
from tasks.dataset.ingestion import load
from tasks.dataset.outputs import Dropped, Intake, Interactions
from tasks.dataset.source_files import ATOMIC, require_pinned, take_in
from tasks.execution.stage import stage
from tasks.storage.artifacts import Handle, write_file, write_parquet

WHOLE_BYTES = 1 << 28
"""Of a plain NAME.inter that is read at once: about ten million interactions."""

_REPEATED = "the same user and item again, newest kept"


def raw_files(config: Dataset, demographics: Sequence[str] = ()) -> dict[str, Handle]:
    """Find the files and take them in as raw artifacts, named by their content.

    Doing this before the cached stage makes the stage's key depend on what the files hold.
    NAME.user is left alone unless something of it is asked for.

    Raises:
        BadInput: if a file does not exist, or cannot be fetched; if fields of users are asked for
            but there is no user file.
    """
    if config.kind != "atomic":
        return take_in(config, tuple(demographics))
    folder = _folder(config)
    interactions = folder / f"{config.name}.inter"
    if not interactions.is_file():
        raise BadInput(
            f"dataset: {interactions} does not exist; set dataset.path to the folder that holds "
            f"{config.name}.inter, or dataset.name to the stem of the files there"
        )
    files = {"inter": interactions, "item": folder / f"{config.name}.item"}
    if demographics:
        files["user"] = folder / f"{config.name}.user"
        if not files["user"].is_file():
            raise BadInput(
                f"history.demographics asks for {', '.join(demographics)}, but {files['user']} "
                "does not exist; add the file, or leave demographics empty"
            )
    taken = {
        kind: write_file("raw", f".{kind}", file) for kind, file in files.items() if file.is_file()
    }
    for kind, handle in taken.items():
        require_pinned(config, ATOMIC[kind], str(files[kind]), handle.sha256)
    return taken


def _folder(config: Dataset) -> Path:
    if config.path is not None:
        return Path(config.path).expanduser()
    recbole = find_spec("recbole")
    assert recbole is not None
    assert recbole.submodule_search_locations is not None
    folder = Path(recbole.submodule_search_locations[0]) / "dataset_example" / config.name
    if not folder.is_dir():
        raise BadInput(
            f"dataset.name: {config.name} does not ship with RecBole (ml-100k does); "
            "set dataset.path to the folder of its atomic files"
        )
    return folder


@stage("interactions", version=1, cheap=True)
def interactions(
    config: Dataset, raw: dict[str, Handle], demographics: tuple[str, ...] = ()
) -> Interactions:
    """Read the files into `INTERACTIONS`, `ITEMS` and `USERS`.

    Of plain atomic files: a pair that occurs more than once keeps its newest interaction. Items
    that nobody touched and items without metadata both stay in the catalogue.

    Args:
        config: names of files and columns.
        raw: what `raw_files` took in.
        demographics: the columns of NAME.user to keep, in an artifact of their own; the others
            are never read into one.

    Raises:
        BadInput: naming file, row and column for malformed or missing values.
    """
    if not config.is_plain or raw["inter"].verify().stat().st_size > WHOLE_BYTES:
        data = load(config, by_role(raw), demographics)
        _tell(config, data.intake)
        return data
    table, repeated = _read_interactions(raw["inter"], config)
    catalogue = _read_items(raw["item"], config) if "item" in raw else None
    users = pa.table({USER: pc.unique(table[USER])}).sort_by(USER)
    known, files = config.identity(), {kind: raw[kind] for kind in raw if kind != "user"}
    people = None
    if demographics:
        people = write_parquet("demographics", _read_users(raw["user"], config, demographics), raw)
    return Interactions(
        interactions=write_parquet("interactions", table, files, known),
        items=write_parquet("items", _catalogue(table, catalogue), files, known),
        users=write_parquet("users", users, files, known),
        demographics=people,
        intake=Intake(
            read=table.num_rows + repeated,
            kept=table.num_rows,
            dropped=(Dropped(step="duplicates", rows=repeated, why=_REPEATED),) if repeated else (),
        ),
    )


def _tell(config: Dataset, intake: Intake | None) -> None:
    """Log what became of every row that did not enter."""
    logger = get_run_logger()
    assert intake is not None
    logger.info("%s: %d rows read, %d kept", config.name, intake.read, intake.kept)
    for of in intake.dropped:
        logger.warning("%s: %d rows dropped by %s: %s", config.name, of.rows, of.step, of.why)
    for of in intake.items:
        logger.warning("%s: %d items dropped by %s: %s", config.name, of.rows, of.step, of.why)
    for note in intake.notes:
        logger.info("%s: %s", config.name, note)


def _read_users(handle: Handle, config: Dataset, fields: tuple[str, ...]) -> pa.Table:
    """`user_id` and the asked-for fields as text, one row per user, sorted."""
    name = f"{config.name}.user"
    with handle.verify().open(encoding="utf-8", errors="replace") as stream:
        header = [field.split(":")[0] for field in stream.readline().rstrip("\r\n").split("\t")]
    offered = [field for field in header if field != USER]
    unknown = [field for field in fields if field not in offered]
    if unknown:
        raise BadInput(
            f"history.demographics: {name} has no field {', '.join(unknown)}; it has "
            f"{', '.join(offered)}"
        )
    table = _read_atomic(handle, name, dict.fromkeys((USER, *fields), pa.string()))
    repeated = table.num_rows - len(pc.unique(table[USER]))
    if repeated:
        raise BadInput(f"{name} lists {repeated} user_id more than once; keep one row per user")
    return table.sort_by(USER).select([USER, *fields]).cast(demographics_schema(fields))


def _read_atomic(handle: Handle, name: str, columns: dict[str, pa.DataType]) -> pa.Table:
    """Read the named columns of a RecBole atomic file (`column:type`, tab-separated)."""
    path = handle.verify()
    with path.open(encoding="utf-8", errors="replace") as stream:
        header = stream.readline().rstrip("\r\n").split("\t")
    names = [field.split(":")[0] for field in header]
    missing = [column for column in columns if column not in names]
    if missing:
        raise BadInput(
            f"{name}: no column {', '.join(missing)} in its first line; it has {', '.join(names)}"
        )
    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(column_names=names, skip_rows=1),
            parse_options=csv.ParseOptions(
                delimiter="\t", quote_char=False, ignore_empty_lines=True
            ),
            convert_options=csv.ConvertOptions(
                include_columns=list(columns),
                column_types=columns,
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise BadInput(f"{name} could not be read: {error}; mend or remove that row") from error
    return table


def _read_interactions(handle: Handle, config: Dataset) -> tuple[pa.Table, int]:
    """The interactions, and how many were dropped as repeated."""
    name = f"{config.name}.inter"
    columns = {
        USER: pa.string(),
        ITEM: pa.string(),
        RATING: pa.float32(),
        TIMESTAMP: pa.float64(),
    }
    table = _read_atomic(handle, name, columns)
    if table.num_rows == 0:
        raise BadInput(f"{name} holds no interactions")
    for column in (USER, ITEM):
        empty = pc.indices_nonzero(pc.is_null(table[column]))
        if len(empty):
            raise BadInput(f"{name}, row {empty[0].as_py() + 2}: {column} is empty; fill it in")
    table = table.set_column(
        table.schema.get_field_index(TIMESTAMP),
        TIMESTAMP,
        pc.cast(pc.floor(table[TIMESTAMP]), pa.int64()),
    )
    unique = _newest_per_pair(table)
    if unique.num_rows < table.num_rows:
        get_run_logger().warning(
            "%s: %d repeated user-item pairs, the newest of each kept",
            name,
            table.num_rows - unique.num_rows,
        )
    kept = unique.select(INTERACTIONS.names).cast(INTERACTIONS)
    return kept, table.num_rows - unique.num_rows


def _newest_per_pair(table: pa.Table) -> pa.Table:
    ordered = table.sort_by([(USER, "ascending"), (ITEM, "ascending"), (TIMESTAMP, "ascending")])
    if ordered.num_rows < 2:
        return ordered
    same_as_next = pc.and_(
        pc.equal(ordered[USER][:-1], ordered[USER][1:]),
        pc.equal(ordered[ITEM][:-1], ordered[ITEM][1:]),
    )
    keep = pa.chunked_array([*pc.invert(same_as_next).chunks, pa.array([True])])
    return ordered.filter(keep)


def _read_items(handle: Handle, config: Dataset) -> pa.Table:
    wanted = {TITLE: config.title, YEAR: config.year, GENRES: config.genres}
    sources = {column: source for column, source in wanted.items() if source is not None}
    columns = {ITEM: pa.string()} | {source: pa.string() for source in sources.values()}
    table = _read_atomic(handle, f"{config.name}.item", columns)
    n = table.num_rows
    title = table[sources[TITLE]] if TITLE in sources else pa.nulls(n, pa.string())
    year = table[sources[YEAR]] if YEAR in sources else pa.nulls(n, pa.string())
    genres = table[sources[GENRES]] if GENRES in sources else pa.nulls(n, pa.string())
    is_year = pc.match_substring_regex(pc.fill_null(year, ""), r"^\d{4}$")
    return pa.table(
        {
            ITEM: table[ITEM],
            TITLE: title,
            YEAR: pc.cast(pc.if_else(is_year, year, None), pa.int32()),
            GENRES: pc.utf8_split_whitespace(genres),
        }
    )


def _catalogue(interactions: pa.Table, items: pa.Table | None) -> pa.Table:
    """Every item that has metadata or an interaction, once, in sorted order."""
    touched = pa.table({ITEM: pc.unique(interactions[ITEM])})
    if items is None:
        items = ITEMS.empty_table()
    repeated = items.num_rows - len(pc.unique(items[ITEM]))
    if repeated:
        raise BadInput(
            f"the item file lists {repeated} item_id more than once; keep one row per item"
        )
    joined = touched.join(items.drop_columns([GENRES]), ITEM, join_type="full outer")
    genres = items[GENRES].take(pc.index_in(joined[ITEM], items[ITEM]))
    return joined.append_column(GENRES, genres).sort_by(ITEM).select(ITEMS.names).cast(ITEMS)
