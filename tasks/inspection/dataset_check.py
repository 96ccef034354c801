"""`llmkt data check`: the content of a data set and its faults, without a run."""

from typing import Any

from models.config import ROLES, Dataset, Pipeline
from models.dataset.column_detection import is_counts
from models.errors import BadInput
from tasks.dataset.file_reading import file_name, read
from tasks.dataset.filters import filtered
from tasks.dataset.interactions_task import fix_of, interactions
from tasks.dataset.outputs import Ingestion, Interactions
from tasks.dataset.requirements import require_enough_items
from tasks.dataset.scratch_tables import Connection, count, rows_of, scratch_tables
from tasks.dataset.source_files import raw_files, source_file
from tasks.dataset.split_task import split, split_files
from tasks.storage.artifacts import Handle, Handoff
from tasks.storage.sql_scripts import script

SHOWN = 5
"""Rows that are named of those with the same fault."""
_QUANTILES = {"min": 0.0, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "max": 1.0}


class Problem(Handoff):
    """A fault, its place and its fix."""

    file: str | None = None
    rows: tuple[int, ...] = ()
    """The first ones."""
    count: int = 1
    what: str
    fix: str | None = None
    refused: bool
    """Whether a run would stop at it."""


class Ratings(Handoff):
    """Ratings and how many there are of each; `ranges`: values are the starts of equal ranges."""

    mean: float
    values: tuple[tuple[float, int], ...]
    ranges: bool


class Contents(Handoff):
    """A summary of interactions."""

    interactions: int
    users: int
    items: int
    density: float
    """Share of all pairs of a user and an item."""
    ratings: Ratings | None
    first: str | None
    last: str | None
    """UTC, ISO 8601."""
    repeated: int
    per_user: dict[str, float]
    per_item: dict[str, float]


class File(Handoff):
    """A file as it was found."""

    name: str
    sha256: str
    bytes: int


class Checked(Handoff):
    """The result of `llmkt data check`."""

    dataset: str
    format: str
    files: dict[str, File]
    read: Contents | None = None
    """The rows that could be read."""
    kept: Contents | None = None
    """The rows that a run uses."""
    ingestion: Ingestion | None = None
    missing_titles: int | None = None
    catalogue: int | None = None
    described: int | None = None
    """Good rows of the item file."""
    problems: tuple[Problem, ...]

    @property
    def refused(self) -> bool:
        """Whether a run would stop."""
        return any(problem.refused for problem in self.problems)


def check(pipeline: Pipeline) -> Checked:
    """Check the data set of a configuration; nothing is trained, paid, or raised for its faults."""
    dataset, fields = pipeline.dataset, pipeline.demographics()
    found: dict[str, Any] = {"files": {}}
    problems: list[Problem] = []
    try:
        raw = raw_files(dataset, fields)
        found["files"] = _files(dataset, raw)
        with scratch_tables() as connection:
            read(connection, dataset, raw)
            problems += _bad_rows(connection, dataset)
            found["read"] = contents(connection)
            problems += _counts(connection, dataset)
            found["ingestion"] = filtered(connection, dataset)
            found["kept"] = contents(connection)
            found["described"] = count(connection, "items")
            found["catalogue"] = count(connection, "catalogue")
            found["missing_titles"] = count(connection, "catalogue WHERE title IS NULL")
    except BadInput as error:
        problems.append(Problem(what=str(error), refused=True))
    else:
        refusal = _refusal(pipeline, raw, fields)
        if refusal and not any(problem.what == refusal for problem in problems):
            problems.insert(0, Problem(what=refusal, refused=True))
    return Checked(dataset=dataset.name, format=dataset.kind, problems=tuple(problems), **found)


def _files(dataset: Dataset, raw: dict[str, Handle]) -> dict[str, File]:
    files: dict[str, File] = {}
    for role in ROLES:
        found = source_file(raw, role)
        if found is not None:
            size = found[1].file.stat().st_size
            files[role] = File(name=file_name(dataset, role), sha256=found[1].sha256, bytes=size)
    return files


def _bad_rows(connection: Connection, dataset: Dataset) -> list[Problem]:
    grouped = rows_of(
        connection,
        f"SELECT role, reason, count(*), list_sort(list(row))[:{SHOWN}] FROM quarantine "
        "GROUP BY 1, 2 ORDER BY 1, 3 DESC, 2",
    )
    return [
        Problem(
            file=file_name(dataset, role),
            rows=tuple(rows),
            count=n,
            what=reason,
            fix=fix_of(reason),
            refused=dataset.bad_rows == "error",
        )
        for role, reason, n, rows in grouped
    ]


def _counts(connection: Connection, dataset: Dataset) -> list[Problem]:
    """Warn of ratings that look like counts."""
    values = rows_of(
        connection, "SELECT rating FROM interactions WHERE rating IS NOT NULL USING SAMPLE 10000"
    )
    column = dataset.columns.rating or ""
    if dataset.feedback == "counts" or not is_counts(
        column, [f"{value:.15g}" for (value,) in values]
    ):
        return []
    what = f"{column or 'the rating'} counts, up to {max(values)[0]:g}: it is no rating"
    fix = "Set dataset.feedback to counts"
    return [Problem(file=file_name(dataset, "interactions"), what=what, fix=fix, refused=False)]


def _refusal(pipeline: Pipeline, raw: dict[str, Handle], fields: tuple[str, ...]) -> str | None:
    """What a run would say before anything is trained."""
    try:
        data: Interactions = interactions.recall(pipeline.dataset, raw, fields)
        require_enough_items(pipeline, data)
        split.recall(pipeline.split, data.interactions, split_files(pipeline.split))
    except BadInput as error:
        return str(error)
    return None


def contents(connection: Connection) -> Contents:
    """Summarise the scratch table of interactions."""
    described = (
        connection.sql(script("dataset/describe_interactions")).to_arrow_table().to_pylist()[0]
    )
    counted = rows_of(connection, script("dataset/rating_histogram"))
    ratings = None
    if counted:
        values = tuple((value, number) for value, number, _, _ in counted)
        ratings = Ratings(mean=counted[0][3], values=values, ranges=counted[0][2])
    return Contents(
        **described,
        ratings=ratings,
        per_user=_spread(connection, "user_id"),
        per_item=_spread(connection, "item_id"),
    )


def _spread(connection: Connection, column: str) -> dict[str, float]:
    """Quantiles and mean of the interactions per user or item."""
    levels = list(_QUANTILES.values())
    found, mean = rows_of(
        connection,
        f"SELECT quantile_cont(n, {levels}), avg(n) FROM "
        f"(SELECT count(*) AS n FROM interactions GROUP BY {column})",
    )[0]
    if found is None:
        return {}
    return {**dict(zip(_QUANTILES, map(float, found), strict=True)), "mean": float(mean)}
