"""Stage *interactions*: files of any format in, Parquet artifacts out, every row accounted for."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from prefect.logging import get_run_logger

from models.config import Dataset
from models.errors import BadInput
from models.schemas import (
    DESCRIBED,
    INTERACTIONS,
    ITEMS,
    QUARANTINE,
    USER,
    USERS,
    demographics_schema,
)
from tasks.dataset.file_reading import file_name, read, read_users
from tasks.dataset.filters import filtered
from tasks.dataset.outputs import Ingestion, Interactions
from tasks.dataset.scratch_tables import Connection, count, rows_of, scratch_tables, write_query
from tasks.execution.stage import stage
from tasks.storage.artifacts import Handle, write_parquet

_FIXES = {
    "timestamp: milliseconds?": "Set dataset.timestamp_unit to ms",
    "timestamp: microseconds?": "Set dataset.timestamp_unit to us",
    "timestamp: nanoseconds?": "Set dataset.timestamp_unit to ns",
    "timestamp: seconds?": "Set dataset.timestamp_unit to s",
    "timestamp is not a number": "Set dataset.timestamp_unit to iso if it is a date or time, or to "
    "its format, such as %m/%d/%Y",
    "timestamp is no ISO date or time": "Set dataset.timestamp_unit to s or ms if it is a number, "
    "or to its format, such as %m/%d/%Y",
    "rating has another decimal mark": "Set dataset.decimal to it",
    "quotes do not match": "Mend it, or run llmkt init on the file, which tries every quoting",
    "an earlier row has the same item_id": "Keep one row per item",
}


@stage("interactions", version=4, cheap=True)
def interactions(
    config: Dataset, raw: dict[str, Handle], demographics: tuple[str, ...] = ()
) -> Interactions:
    """Read the files of `raw_files` into `INTERACTIONS`, `ITEMS` and `USERS`, as `dataset` says.

    Items without interactions and items without metadata both stay in the catalogue, unless filters
    drop them. `demographics` are the columns of the user file to keep, in an artifact of their own;
    no other column of that file reaches an artifact.

    Raises:
        BadInput: naming file, row and fix for what cannot be read, unless `bad_rows` is quarantine;
            if nothing is left.
    """
    asked = demographics or config.columns.user_features
    people = _people(config, raw, demographics) if asked else None
    with scratch_tables() as connection:
        read(connection, config, raw)
        _require_no_bad_rows(connection, config)
        data = _written(connection, config, raw, filtered(connection, config), people)
    _log(config, data)
    if not demographics or people is None:
        return data
    known = people.select([USER, *demographics]).cast(demographics_schema(demographics))
    return data.model_copy(update={"demographics": write_parquet("demographics", known, raw)})


def fix_of(reason: str) -> str:
    """Name the fix for rows that were refused for a reason."""
    if "values instead of" in reason:
        return "Mend or remove it, or the first line if that is no header"
    return _FIXES.get(reason, "Mend or remove it")


def _require_no_bad_rows(connection: Connection, config: Dataset) -> None:
    """Stop at rows that cannot be read, unless they are to be set aside."""
    n = count(connection, "quarantine")
    if config.bad_rows == "quarantine" or not n:
        return
    role, row, reason = rows_of(
        connection, "SELECT role, row, reason FROM quarantine ORDER BY role, row LIMIT 1"
    )[0]
    more = f", and {n - 1} more bad rows" if n > 1 else ""
    raise BadInput(
        f"{file_name(config, role)}, row {row}: {reason}{more}. {fix_of(reason)}, or set "
        "dataset.bad_rows to quarantine to go on without bad rows (llmkt data check lists them)."
    )


def _people(config: Dataset, raw: dict[str, Handle], fields: tuple[str, ...]) -> pa.Table:
    """`user_id`, the asked-for fields as text and `features`, one row per user, sorted."""
    file, table = read_users(config, raw, fields)
    repeated = table.num_rows - len(pc.unique(table[USER]))
    if repeated:
        raise BadInput(f"{file}: {repeated} user_id occur more than once. Keep one row per user.")
    return table.sort_by(USER)


def _written(
    connection: Connection,
    config: Dataset,
    raw: dict[str, Handle],
    ingestion: Ingestion,
    people: pa.Table | None,
) -> Interactions:
    inputs = {key: handle for key, handle in raw.items() if not key.startswith("users")}

    def write(artifact: str, schema: pa.Schema, rows: str, **values: Any) -> Handle:
        query = f"SELECT {', '.join(schema.names)} FROM {rows}"
        return write_query(connection, artifact, schema, query, inputs, config.identity(), values)

    quarantine = None
    if count(connection, "quarantine"):
        quarantine = write(
            "quarantine",
            QUARANTINE,
            "(SELECT if(role = 'items', $items, $interactions) AS file, * FROM quarantine) "
            "ORDER BY file, row",
            items=file_name(config, "items"),
            interactions=file_name(config, "interactions"),
        )
    items, users, known = ITEMS, USERS, "(SELECT DISTINCT user_id FROM interactions)"
    if config.columns.item_features:
        items = ITEMS.append(DESCRIBED)
    if config.columns.user_features:
        connection.register("people", people)
        users, known = USERS.append(DESCRIBED), f"{known} LEFT JOIN people USING (user_id)"
    return Interactions(
        interactions=write("interactions", INTERACTIONS, "interactions ORDER BY user_id, item_id"),
        items=write("items", items, "catalogue ORDER BY item_id"),
        users=write("users", users, f"{known} ORDER BY user_id"),
        ingestion=ingestion.model_copy(update={"quarantine": quarantine}),
    )


def _log(config: Dataset, data: Interactions) -> None:
    """Log what became of every row that was not kept."""
    logger, ingestion = get_run_logger(), data.ingestion
    assert ingestion is not None
    logger.info(f"{config.name}: {ingestion.read} rows read, {ingestion.kept} kept")
    for kind, dropped in (("rows", ingestion.dropped), ("items", ingestion.items)):
        for drop in dropped:
            logger.warning(f"{config.name}: {drop.rows} {kind} dropped by {drop.step}: {drop.why}")
    for note in ingestion.notes:
        logger.info(f"{config.name}: {note}")
