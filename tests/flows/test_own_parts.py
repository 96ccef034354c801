"""A run whose every part is one's own: the examples, by import path."""

import duckdb
import pytest
import yaml

from tasks.storage.artifacts import PROJECT_ROOT
from tests.support.toy_project import states, world  # noqa: F401 - a fixture

EXAMPLES = PROJECT_ROOT / "examples"
PLAIN, METRIC = "matrix_factorization.py:MatrixFactorization", "first_hit.py:first_hit"
CONTROL = "own_parts.py:popularity"


@pytest.fixture(scope="module")
def done(world):  # noqa: F811
    settings = yaml.safe_load(world.config.read_text())
    settings |= {
        "embeddings": {"provider": f"{EXAMPLES}/own_parts.py:letters"},
        "targets": {"reduction": f"{EXAMPLES}/own_parts.py:random_projection"},
        "models": {f"{EXAMPLES}/{PLAIN}": {"hyperparameters": {"width": 8}}},
        "transfer": {"alignment": f"{EXAMPLES}/huber_alignment.py:HUBER"},
        "training": {
            "epochs": 2,
            "seeds": [1],
            "arms": ["baseline", "transfer", f"{EXAMPLES}/{CONTROL}"],
            "valid_metric": f"{EXAMPLES}/{METRIC}@5",
        },
        "evaluation": {
            "metrics": ["ndcg", f"{EXAMPLES}/{METRIC}"],
            "k": [5],
            "primary": f"{EXAMPLES}/{METRIC}@5",
        },
    }
    world.config.write_text(yaml.safe_dump(settings))
    return world.run()


def test_every_part_is_by_import_path(done, world):  # noqa: F811
    with duckdb.connect(world.data / "results.duckdb", read_only=True) as connection:
        runs = connection.execute(
            "SELECT model, arm, alignment, reduction, embedding_model FROM runs ORDER BY arm"
        ).fetchall()
        values = connection.execute(
            "SELECT DISTINCT value FROM user_metrics WHERE metric LIKE '%first_hit'"
        ).fetchall()
    assert {row[0] for row in runs} == {f"{EXAMPLES}/{PLAIN}"}
    assert {row[1] for row in runs} == {"baseline", "transfer", f"{EXAMPLES}/{CONTROL}"}
    transfer = next(row for row in runs if row[1] == "transfer")
    assert transfer[2:] == (
        f"{EXAMPLES}/huber_alignment.py:HUBER",
        f"{EXAMPLES}/own_parts.py:random_projection",
        f"{EXAMPLES}/own_parts.py:letters",
    )
    assert {value for (value,) in values} <= {0.0, 0.5, 1.0}
    report = (world.data / done["report"]).read_text()
    assert "first_hit@5" in report


def test_a_second_run_is_cached(done, world):  # noqa: F811
    assert done
    again = states(world.run())
    assert {state for name, state in again.items() if name != "report"} == {"cached"}
