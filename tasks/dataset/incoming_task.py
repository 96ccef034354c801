"""Stages *incoming* and *fold_in*: append-only drops of new interactions into a data set.

Drops are never moved, altered or deleted: the folded data set is a function of the data set and of
the files that are there, so that no interruption can load half of one.
"""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from time import time

import pyarrow as pa
import pyarrow.compute as pc
from prefect.logging import get_logger, get_run_logger

from models.dataset.file_layouts import drop_layout
from models.errors import BadInput
from models.schemas import INTERACTIONS, ITEM, ITEMS, QUARANTINE, USER, USERS
from tasks.dataset.file_reading import read_file
from tasks.dataset.outputs import Interactions
from tasks.dataset.scratch_tables import Connection, count, rows_of, scratch_tables, write_query
from tasks.execution.stage import stage
from tasks.storage.artifacts import Handle, Handoff, read_parquet, write_bytes, write_parquet
from tasks.storage.sql_scripts import query

FORMATS = (".csv", ".tsv", ".inter", ".parquet")
UNFINISHED = (".part", ".tmp", ".crdownload")
"""Ends of names of unfinished files; names that start with . or _ belong to such files, too."""
SETTLE_SECONDS = 60.0

_SHOWN = 10


class Drop(Handoff):
    """One file of new interactions, as a raw artifact named by its content."""

    name: str
    content: Handle


class Drops(Handoff):
    """The files to fold in, sorted by name, and the names of unfinished and unreadable ones."""

    files: tuple[Drop, ...]
    waiting: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class Incoming(Handoff):
    """The content of one drop: schema `INTERACTIONS` in the file's order, and `QUARANTINE`."""

    interactions: Handle
    quarantine: Handle


class Folded(Handoff):
    """A data set with all drops folded in; the data set itself if they hold nothing new.

    Every good row of a drop is one of `new_interactions` (a pair that the data set did not have),
    `updated` (a newer interaction of a pair that it had) or `repeated` (the rest: older ones, and
    the same again).
    """

    data: Interactions
    new_interactions: int
    updated: int
    repeated: int
    quarantined: int
    files: int
    waiting: tuple[str, ...] = ()
    quarantine: Handle | None = None
    """Schema `QUARANTINE`; None where nothing was refused."""


def drops(folder: Path, settle_seconds: float = SETTLE_SECONDS) -> Drops:
    """Find the drops in `folder`, if it exists, and write each as a raw artifact by its content.

    Doing this before the cached stages makes their keys depend on what the files hold. A file that
    was changed within `settle_seconds` waits for the next time; what cannot be read is set aside.

    Raises:
        BadInput: if `folder` is no folder, or cannot be listed.
    """
    found, waiting, logger = [], [], get_logger("incoming")
    refused: dict[str, str] = {}
    for file in _files(folder):
        if file.name.startswith((".", "_")) or file.name.endswith(UNFINISHED):
            continue
        try:
            file.name.encode()  # else nothing could be written about it
            content = _settled_content(file, settle_seconds)
        except UnicodeEncodeError:
            refused[ascii(file.name)] = "its name is not UTF-8. Rename it"
        except OSError as error:
            refused[file.name] = f"{error.strerror}. Replace it by a file that can be read"
        else:
            if isinstance(content, Handle):
                found.append(Drop(name=file.name, content=content))
            elif content:
                waiting.append(file.name)
    if waiting:
        logger.info("%s: unfinished, left for the next time: %s", folder, ", ".join(waiting))
    for name, reason in refused.items():
        logger.warning("%s: %s was set aside: %s", folder, name, reason)
    return Drops(files=tuple(found), waiting=tuple(waiting), refused=tuple(refused))


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadInput(
            f"nightly.incoming: {folder}: {error.strerror}. Name a folder that can be read."
        ) from error


def _settled_content(file: Path, seconds: float) -> Handle | bool:
    """Write a file as a raw artifact; True if it is not settled yet, False for a folder.

    Raises:
        OSError: if it is no file, of another kind than is read here, or cannot be read.
    """
    known = file.suffix.lower() in FORMATS
    if not known and stat.S_ISDIR(file.stat().st_mode):
        return False
    if not known:
        raise OSError(errno.EINVAL, f"only {' '.join(FORMATS)} are read")
    try:
        # Otherwise a FIFO would wait for somebody to write to it.
        with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:  # noqa: PTH123
            before = os.fstat(stream.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise OSError(errno.EINVAL, "no regular file")
            if time() - before.st_mtime < seconds:
                return True
            content = stream.read()
            after = file.stat()
    except FileNotFoundError:
        if file.is_symlink():
            raise
        return True
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, len(content)):
        return True
    return write_bytes("raw", file.suffix.lower(), content)


@stage("incoming", version=2)
def incoming(drop: Drop) -> Incoming:
    """Divide a drop into clean interactions and quarantine; no content makes this fail."""
    path, inputs = drop.content.verify(), {"drop": drop.content}
    with scratch_tables() as connection:
        try:
            read_file(connection, path, drop.name, drop_layout(path.suffix))
        except BadInput as error:
            reason = str(error).removeprefix(drop.name).lstrip(",: ")
            connection.execute("DELETE FROM interactions; DELETE FROM quarantine")
            connection.execute("INSERT INTO quarantine (reason) VALUES ($1)", [reason])
        _warn(connection, drop.name)
        rows = f"SELECT {', '.join(INTERACTIONS.names)} FROM interactions ORDER BY row"
        bad = "SELECT $name AS file, row, line, reason FROM quarantine ORDER BY row"
        return Incoming(
            interactions=write_query(connection, "incoming", INTERACTIONS, rows, inputs),
            quarantine=write_query(
                connection, "quarantine", QUARANTINE, bad, inputs, values={"name": drop.name}
            ),
        )


def _warn(connection: Connection, name: str) -> None:
    """Log the first refused rows of a drop, once: when it is read."""
    logger, n = get_run_logger(), count(connection, "quarantine")
    first = f"SELECT row, reason FROM quarantine ORDER BY row LIMIT {_SHOWN}"
    for row, reason in rows_of(connection, first):
        place = name if row is None else f"{name}, row {row}"
        logger.warning("%s was refused: %s", place, reason)
    if n > _SHOWN:
        logger.warning("%s: %d more rows were refused", name, n - _SHOWN)


@stage("fold_in", version=1)
def fold_in(base: Interactions, read: Sequence[Incoming]) -> Folded:
    """Add the clean rows of drops, in the order of their names, to a data set; see `fold.sql`."""
    every = [base.interactions, *(drop.interactions for drop in read)]
    rows = pa.concat_tables(map(read_parquet, every)).replace_schema_metadata(None)
    rows = rows.append_column("place", pa.array(range(rows.num_rows), pa.int64()))
    folded = query("dataset/fold", {"interactions": rows}, known=base.interactions.rows)
    new, updated = (pc.sum(folded[mark]).as_py() or 0 for mark in ("is_new", "is_newer"))
    table = folded.select(INTERACTIONS.names).cast(INTERACTIONS)
    clean = {f"drop {number}": drop.interactions for number, drop in enumerate(read)}
    n_rows = sum(handle.rows for handle in clean.values())
    bad = {f"drop {number}": drop.quarantine for number, drop in enumerate(read)}
    refused = {name: handle for name, handle in bad.items() if handle.rows}
    inputs, quarantine = {"base": base.interactions, **clean}, None
    if refused:
        tables = pa.concat_tables([read_parquet(handle) for handle in refused.values()])
        quarantine = write_parquet("quarantine", tables.replace_schema_metadata(None), refused)
    result = Folded(
        data=_written(base, table, inputs) if new + updated else base,
        new_interactions=new,
        updated=updated,
        repeated=n_rows - new - updated,
        quarantined=sum(handle.rows for handle in refused.values()),
        files=len(read),
        quarantine=quarantine,
    )
    get_run_logger().info(
        f"{result.files} files: {result.new_interactions} new interactions, {result.updated} newer "
        f"ones, {result.repeated} repeated, {result.quarantined} rows or files refused"
    )
    return result


def _written(base: Interactions, table: pa.Table, inputs: dict[str, Handle]) -> Interactions:
    """The artifacts of the folded data set; new items have no metadata."""
    items = read_parquet(base.items).replace_schema_metadata(None)
    touched = pc.unique(table[ITEM])
    added = touched.filter(pc.invert(pc.is_in(touched, items[ITEM].combine_chunks())))
    nothing = [pa.nulls(len(added), field.type) for field in ITEMS][1:]
    new = pa.table([added, *nothing], schema=ITEMS)
    catalogue = pa.concat_tables([items, new], promote_options="default").sort_by(ITEM)
    known = read_parquet(base.users).replace_schema_metadata(None)
    users = pa.table({USER: pc.unique(table[USER])}, schema=USERS)
    users = users.join(known, USER).sort_by(USER)
    return base.model_copy(
        update={
            "interactions": write_parquet("interactions", table, inputs),
            "items": write_parquet("items", catalogue, {**inputs, "items": base.items}),
            "users": write_parquet("users", users, inputs),
        }
    )
