"""A bundle checked: split, metrics, verdicts and profiles are computed once more."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.config import BASELINE, Evaluation, History, Side
from models.evaluation.user_scores import UserValues, score, score_clicks
from models.profiles.provenance import provenance_of
from models.report.wording import metric_name
from models.schemas import ITEM, TEXT
from models.statistics.claims import declare
from models.statistics.comparability import split_digest
from models.statistics.contrasts import contrasts
from tasks.report.bundle import TABLES, opened
from tasks.results.cross_experiment import Points, points_of, runs_of, user_values
from tasks.results.database import create_tables
from tasks.results.queries import Rows, select
from tasks.storage.sql_scripts import script

Finding = tuple[str, bool, str]
"""What should hold, whether it does, and the difference where it does not."""
Row = Mapping[str, Any]
_PROVED = ("none seen", "train-only")
_KEY = ("point", "model", "arm", "against", "metric", "k")
_TESTED = ("difference", "ci_low", "ci_high", "p_value", "p_adjusted", "verdict", "claim")


def verify(bundle: Path) -> Iterator[Finding]:
    """Compute a bundle's numbers again, without key or network; for errors see `opened`."""
    content = opened(bundle)
    tables = {
        path: pq.read_table(pa.BufferReader(held))
        for path, held in content.items()
        if path.endswith(".parquet")
    }
    with duckdb.connect() as connection:
        create_tables(connection)
        for name in TABLES:
            connection.register(f"new_{name}", tables[f"results/{name}.parquet"])
            connection.execute(f"INSERT INTO {name} BY NAME FROM new_{name}")
        runs = select(connection, "FROM runs ORDER BY model, arm, seed, run_id")
        values = user_values(connection, [run["run_id"] for run in runs])
        points = points_of(connection, runs[0]["experiment"])
        scores = select(connection, script("report/baseline_scores"))
        stored = select(connection, "FROM contrasts ORDER BY ALL")
    found: dict[object, Finding] = {}
    for run in runs:
        for key, finding in _of_run(run, tables, values[run["run_id"]]):
            found.setdefault(key, finding)
    yield from found.values()
    yield _verdicts(points, values, {row["run_id"]: row["valid_score"] for row in scores}, stored)


def _of_run(
    run: Row, tables: Mapping[str, pa.Table], stored: UserValues
) -> Iterator[tuple[object, Finding]]:
    """What a run's artifacts say, each under a key that runs may share."""
    files, config = json.loads(run["artifacts"]), json.loads(run["config"])
    train, valid, test = (tables[files[part]] for part in ("train", "valid", "test"))
    said, digest = run["split_digest"], split_digest(train, valid, test)
    yield (said, files["train"]), (f"split {said}", digest == said, f"it is another, {digest}")
    for name, path in files.items():
        known = run["profile_provenance"] and name.startswith("profiles")
        if known and path in tables:
            yield (path, files["train"]), _leak_free(name, run, config, tables[path], train)
    if files["rankings"] in tables:
        evaluation = Evaluation.model_validate(config["evaluation"])
        ranked = tables[files["rankings"]]
        again = (
            score(ranked, test, "test", evaluation)
            if evaluation.like_from is None
            else score_clicks(ranked, "test", evaluation)
        )
        yield run["run_id"], _metrics(run, again, stored)


def _leak_free(name: str, run: Row, config: Any, profiles: pa.Table, train: pa.Table) -> Finding:
    """The certificate: every record is that of training interactions of this split."""
    history = config["profiles"]["history"] | {"feedback": config["dataset"]["feedback"]}
    written = profiles.filter(pc.is_valid(profiles[TEXT]))
    policy = History.model_validate(history)
    side: Side = "items" if profiles.column_names[0] == ITEM else "users"
    seen = provenance_of(written, train, policy, side)
    what = f"{name}: {written.num_rows} records of what they saw, against the training part"
    claimed = run["profile_provenance"]
    return what, seen in _PROVED or claimed not in _PROVED, f"{seen}, the runs say {claimed}"


def _metrics(run: Row, again: UserValues, stored: UserValues) -> Finding:
    """Values per user from rankings (or predicted likes) and the test part."""
    what = f"{run['model']} {run['arm']} seed {run['seed']}: {len(stored.users)} users' metrics"
    others = np.setxor1d(again.users, stored.users)
    if len(others):
        return what, False, f"{len(others)} users are on one side only, such as {others[0]}"
    for column, values in again.values.items():
        differ = ~np.isclose(values, stored.values[column], rtol=1e-9, atol=1e-12)
        if differ.any():
            user = int(differ.argmax())
            said = f"{values[user]:.6f}, not {stored.values[column][user]:.6f}"
            who = f"{metric_name(*column)} of user {again.users[user]}"
            return what, False, f"{who} is {said}; {differ.sum()} users differ"
    return what, True, ""


def _verdicts(
    points: Points, values: Mapping[str, UserValues], valid: Mapping[str, float], stored: Rows
) -> Finding:
    """Differences, intervals, p-values and verdicts from the values per user."""
    config = json.loads(next(iter(points.values()))[0]["config"])
    evaluation = Evaluation.model_validate(config["evaluation"])
    scores: dict[tuple[str | None, str], list[float]] = {}
    for point, rows in points.items():
        for row in rows:
            if row["arm"] == BASELINE and row["run_id"] in valid:
                scores.setdefault((point, row["model"]), []).append(valid[row["run_id"]])
    arms = {point: [(row["model"], row["arm"]) for row in rows] for point, rows in points.items()}
    family = declare(evaluation.claims, arms, {key: fmean(each) for key, each in scores.items()})
    runs = {point: runs_of(rows, values) for point, rows in points.items()}
    found = contrasts(runs, evaluation.columns(), evaluation.primary, family)
    again = {tuple(row[name] for name in _KEY): row for row in (each.row() for each in found)}
    what = f"{len(stored)} differences, intervals and verdicts"
    for row in stored:
        own = again.pop(tuple(row[name] for name in _KEY), {})
        for name in _TESTED:
            if not _same(own.get(name), row[name]):
                column = metric_name(row["metric"], row["k"])
                who = f"{row['model']} {row['arm']} against {row['against']} on {column}"
                return what, False, f"{name} of {who} is {own.get(name)}, not {row[name]}"
    return what, not again, f"{len(again)} more follow from the values per user"


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.isclose(one, other, rtol=1e-6, atol=1e-9))
    return bool(one == other)
