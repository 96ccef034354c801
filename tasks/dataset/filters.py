"""Filters of a data set's interactions: every row that is dropped is counted, with the reason."""

from typing import Any

from models.config import Dataset, Role, seconds
from models.errors import BadInput
from tasks.dataset.file_reading import file_name
from tasks.dataset.outputs import Dropped, Ingestion
from tasks.dataset.scratch_tables import Connection, count, execute, rows_of, set_variables


def filtered(connection: Connection, config: Dataset) -> Ingestion:
    """Filter the scratch tables and count the rows that each step drops.

    Steps, in order: bad rows, since and until, duplicates, rating_from, k_core.

    Raises:
        BadInput: if nothing is left, or a step needs what the data do not have.
    """
    name = file_name(config, "interactions")
    dropped = _bad_rows(connection, "interactions")
    n_read = count(connection, "interactions") + sum(drop.rows for drop in dropped)
    dropped += _outside_of_time(connection, config, name)
    dropped += _repeated(connection, config, name)
    dropped += _not_liked(connection, config, name)
    dropped += _outside_of_core(connection, config)
    kept = count(connection, "interactions")
    if not kept:
        why = "; ".join(f"{drop.rows} by {drop.step} ({drop.why})" for drop in dropped)
        fix = "Change the filters that dropped them"
        if {drop.step for drop in dropped} == {"bad_rows"}:
            fix = "Correct the settings by which the file is read; llmkt init finds them"
        raise BadInput(
            f"{name}: no interactions are left of {n_read} rows"
            + (f": {why}. {fix}." if why else ". Add some.")
        )
    items, notes = _catalogue(connection, config)
    return Ingestion(
        read=n_read, kept=kept, dropped=tuple(dropped), items=tuple(items), notes=tuple(notes)
    )


def _bad_rows(connection: Connection, role: Role) -> list[Dropped]:
    refused = rows_of(
        connection,
        "SELECT reason, count(*) FROM quarantine WHERE role = $role GROUP BY 1 ORDER BY 1",
        role=role,
    )
    return [Dropped(step="bad_rows", rows=n, why=reason) for reason, n in refused]


def _deleted(
    connection: Connection, step: str, condition: str, why: str, **values: Any
) -> list[Dropped]:
    done = connection.execute(f"DELETE FROM interactions WHERE {condition}", values or None)
    rows = int((done.fetchone() or (0,))[0])
    return [Dropped(step=step, rows=rows, why=why)] if rows else []


def _outside_of_time(connection: Connection, config: Dataset, name: str) -> list[Dropped]:
    if config.since is None and config.until is None:
        return []
    if not count(connection, "interactions WHERE timestamp IS NOT NULL"):
        raise BadInput(
            f"{name}: dataset.since and until need times, but it has none. Set "
            "dataset.columns.timestamp, or leave them empty."
        )
    dropped = []
    for step, given, sign in (("since", config.since, "<"), ("until", config.until, ">=")):
        if given is not None:
            why = f"{'before' if step == 'since' else 'not before'} {given}"
            moment = seconds(given)
            dropped += _deleted(connection, step, f"timestamp {sign} $moment", why, moment=moment)
    return dropped


def _repeated(connection: Connection, config: Dataset, name: str) -> list[Dropped]:
    before = count(connection, "interactions")
    if config.duplicates == "error":
        first = rows_of(
            connection,
            "SELECT user_id, item_id, min(row), max(row) FROM interactions GROUP BY ALL "
            "HAVING count(*) > 1 ORDER BY 3 LIMIT 1",
        )
        if first:
            user, item, earlier, later = first[0]
            raise BadInput(
                f"{name}, row {later}: user {user} and item {item} are in row {earlier} already. "
                "Remove one, or set dataset.duplicates to newest, oldest or max-rating."
            )
        return []
    set_variables(connection, duplicates=config.duplicates)
    execute(connection, "drop_duplicates")
    rows = before - count(connection, "interactions")
    why = f"the same user and item again, {config.duplicates} kept"
    return [Dropped(step="duplicates", rows=rows, why=why)] if rows else []


def _not_liked(connection: Connection, config: Dataset, name: str) -> list[Dropped]:
    if config.rating_from is None:
        return []
    if not count(connection, "interactions WHERE rating IS NOT NULL"):
        raise BadInput(
            f"{name}: dataset.rating_from needs ratings, but it has none. Set "
            "dataset.columns.rating, or leave rating_from empty."
        )
    step, from_ = "rating_from", config.rating_from
    return [
        *_deleted(connection, step, "rating IS NULL", "no rating"),
        *_deleted(connection, step, "rating < $low", f"rating below {from_:g}", low=from_),
    ]


def _outside_of_core(connection: Connection, config: Dataset) -> list[Dropped]:
    """Drop users and items with too few interactions until all have enough."""
    core = config.k_core
    set_variables(connection, core_users=core.users, core_items=core.items)
    totals = {"users": 0, "items": 0}
    rounds, changed = 0, core.users > 1 or core.items > 1
    while changed:
        changed, rounds = False, rounds + 1
        for side in totals:
            before = count(connection, "interactions")
            execute(connection, f"k_core_{side}")
            rows = before - count(connection, "interactions")
            totals[side] += rows
            changed = changed or rows > 0
    limits = {"users": core.users, "items": core.items}
    return [
        Dropped(
            step="k_core",
            rows=rows,
            why=f"{side} with fewer than {limits[side]} interactions, {rounds} rounds",
        )
        for side, rows in totals.items()
        if rows
    ]


def _catalogue(connection: Connection, config: Dataset) -> tuple[list[Dropped], list[str]]:
    """Fill the catalogue; return the items that are left out, and notes on the rest."""
    set_variables(connection, only_touched=config.k_core.items > 0)
    execute(connection, "catalogue")
    dropped = _bad_rows(connection, "items")
    left_out = count(connection, "items") - count(connection, "catalogue WHERE described")
    if left_out:
        why = "no interaction is left of them (k_core.items)"
        dropped.append(Dropped(step="k_core", rows=left_out, why=why))
    notes = [
        f"{n} {what}"
        for what, condition in (
            ("items without title", "title IS NULL"),
            ("items with interactions that the item file does not describe", "NOT described"),
            ("items in the catalogue without interactions", "NOT touched"),
        )
        if (n := count(connection, f"catalogue WHERE {condition}"))
    ]
    odd = rows_of(connection, "SELECT what, sum(rows) FROM counted GROUP BY 1 HAVING sum(rows) > 0")
    return dropped, notes + [f"{n} {what}" for what, n in odd]
