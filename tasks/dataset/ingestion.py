"""A data set of any format as artifacts: read, filtered, and every row accounted for."""

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from models.config import Dataset
from models.dataset.file_layouts import layout
from models.errors import BadInput
from models.schemas import INTERACTIONS, ITEMS, QUARANTINE, USER, USERS, demographics_schema
from tasks.dataset.column_blocks import read_columns
from tasks.dataset.file_reading import file_name, read
from tasks.dataset.filters import account, rows_read
from tasks.dataset.outputs import Intake, Interactions
from tasks.dataset.scratch_tables import count, rows_of, scratch_tables, set_variables
from tasks.dataset.source_files import of_role
from tasks.storage.artifacts import Handle, write_batches, write_parquet

if TYPE_CHECKING:
    import duckdb

BATCH = 1 << 17
"""Rows per record batch of an artifact."""

FIXES = {
    "timestamp: milliseconds?": "set dataset.timestamp_unit to ms",
    "timestamp: seconds?": "set dataset.timestamp_unit to s",
    "timestamp is not a number": "set dataset.timestamp_unit to iso if it is a date or time",
    "timestamp is no ISO date or time": "set dataset.timestamp_unit to s or ms if it is a number",
    "quotes do not match": "mend it, or set dataset.quoting to none if quotes are characters",
    "an earlier row has the same item_id": "keep one row per item",
}
"""What else than mending the row helps, by reason."""


def load(
    config: Dataset, raw: dict[str, Handle], demographics: tuple[str, ...] = ()
) -> Interactions:
    """Read files into `INTERACTIONS`, `ITEMS` and `USERS`, as `dataset` says.

    Args:
        config: formats, columns and filters.
        raw: what `tasks.dataset.source_files.take_in` found.
        demographics: the fields of the user file to keep.

    Raises:
        BadInput: naming file, row and fix for what cannot be read, unless `bad_rows` is
            quarantine; if nothing is left.
    """
    people = None
    if demographics:
        people = write_parquet("demographics", _read_users(config, raw, demographics), raw)
    with scratch_tables() as connection:
        read(connection, config, raw)
        refuse_bad_rows(connection, config)
        intake = account(connection, config, rows_read(connection))
        return _written(connection, config, raw, intake).model_copy(update={"demographics": people})


def refuse_bad_rows(connection: "duckdb.DuckDBPyConnection", config: Dataset) -> None:
    """Stop at rows that cannot be read, unless they are to be set aside.

    Raises:
        BadInput: naming the first one, how many there are, and the fix.
    """
    if config.bad_rows == "quarantine" or not count(connection, "quarantine"):
        return
    first = rows_of(
        connection, "SELECT role, row, reason FROM quarantine ORDER BY role, row LIMIT 1"
    )[0]
    others = count(connection, "quarantine") - 1
    role, row, reason = first
    more = f", and {others} more such rows or others" if others else ""
    raise BadInput(
        f"{file_name(config, role)}, row {row}: {reason}{more}; {fix_of(reason)}, or set "
        "dataset.bad_rows to quarantine to go on without them (llmkt data check lists them)"
    )


def fix_of(reason: str) -> str:
    """What to do about rows that were refused for a reason."""
    return FIXES.get(reason, "mend or remove it")


def _read_users(config: Dataset, raw: dict[str, Handle], fields: tuple[str, ...]) -> pa.Table:
    """`user_id` and the asked-for fields as text, one row per user, sorted."""
    found = of_role(raw, "users")
    assert found is not None, "take_in refuses fields without a user file"
    file, how = file_name(config, "users"), layout(config, "users", found[0])
    table = read_columns(found[1].verify(), file, how, fields)
    ids = table[USER]
    repeated = table.num_rows - len(pc.unique(ids))
    if repeated:
        raise BadInput(f"{file} lists {repeated} user_id more than once; keep one row per user")
    if pc.any(pc.equal(pc.fill_null(ids, ""), "")).as_py():
        raise BadInput(f"{file}: a user_id is empty; fill it in or remove the row")
    return table.sort_by(USER).select([USER, *fields]).cast(demographics_schema(fields))


def _written(
    connection: "duckdb.DuckDBPyConnection",
    config: Dataset,
    raw: dict[str, Handle],
    intake: Intake,
) -> Interactions:
    inputs = {key: handle for key, handle in raw.items() if not key.startswith("user")}
    known = config.identity()

    def write(stage: str, schema: pa.Schema, query: str) -> Handle:
        reader = connection.sql(query).to_arrow_reader(BATCH)
        return write_batches(stage, schema, reader, inputs, known)

    quarantine = None
    if count(connection, "quarantine"):
        set_variables(
            connection,
            items=file_name(config, "items"),
            interactions=file_name(config, "interactions"),
        )
        quarantine = write(
            "quarantine",
            QUARANTINE,
            "SELECT if(role = 'items', getvariable('items'), getvariable('interactions')) AS file, "
            "row, line, reason FROM quarantine ORDER BY 1, 2",
        )
    return Interactions(
        interactions=write(
            "interactions",
            INTERACTIONS,
            f"SELECT {', '.join(INTERACTIONS.names)} FROM interactions ORDER BY user_id, item_id",
        ),
        items=write(
            "items", ITEMS, f"SELECT {', '.join(ITEMS.names)} FROM catalogue ORDER BY item_id"
        ),
        users=write("users", USERS, "SELECT DISTINCT user_id FROM interactions ORDER BY user_id"),
        intake=intake.model_copy(update={"quarantine": quarantine}),
    )
