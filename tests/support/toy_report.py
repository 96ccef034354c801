"""A report with every section, of hand-made models and profiles."""

import os
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
from prefect.logging import disable_run_logger

from models.schemas import ITEMS, PROFILES, vectors
from tasks.embeddings.outputs import Described
from tasks.execution.stage import StageRecord
from tasks.report.report_task import report
from tasks.results.database import database
from tasks.storage.artifacts import Handle, write_parquet
from tests.support import toy_runs
from tests.support.toy_world import TINY

CHARTS = 1 + 3
"""A sweep of alpha; validation score and both losses of BPR."""
NASTY = "</script><script>intruded = 1</script><img src=x onerror='intruded = 2'> & 2 < 3"
USERS = TINY.users
STAGES = [
    StageRecord(name="split", state="ran", seconds=0.5),
    StageRecord(name="training", model="BPR", arm="transfer", state="partial", seconds=1.5),
]


def described() -> Described:
    """Twelve users with a profile, one of which tries to leave the page's script."""
    rows = [
        {"user_id": user, "text": NASTY if user == "u7" else f"likes {user}", "profile_key": user}
        for user in USERS
    ]
    profiles = write_parquet("profiles", pa.Table.from_pylist(rows, schema=PROFILES))
    numbers = np.random.default_rng(0).normal(size=(len(USERS), 8)).tolist()
    table = pa.table([USERS, numbers], schema=vectors("embedding", 8))
    embedded = toy_runs.embedded().model_copy(
        update={"embeddings": write_parquet("embeddings", table)}
    )
    return Described(side="users", profiled=toy_runs.profiled(profiles=profiles), embedded=embedded)


def catalogue() -> Handle:
    """Nine items, each of a genre."""
    rows = [{"item_id": f"i{n}", "genres": [["Drama", "War"][n % 2]]} for n in range(1, 10)]
    return write_parquet("items", pa.Table.from_pylist(rows, schema=ITEMS))


def rich(folder: Path) -> Path:
    """Write the report of BPR with a control, beside EASE, into a data folder."""
    with patch.dict(os.environ, {"LLMKT_DATA_DIR": str(folder)}), disable_run_logger():
        config = toy_runs.pipeline(models={"BPR": {}, "EASE": {}}, training=toy_runs.TRAINING)
        trained = [
            toy_runs.trained(config, model, arm, seed, toy_runs.RANKED[like, seed])
            for (model, arm), like in toy_runs.RANKS_AS.items()
            for seed in (1, 2)
        ]
        trained = [
            run.model_copy(update={"epochs": run.epochs[:1], "best_epoch": 0})
            if run.job.model == "EASE"
            else run
            for run in trained
        ]
        users, parts, items = described(), toy_runs.splits(), catalogue()
        found = toy_runs.evaluated_run(config, parts, trained, [users], items)
        with database() as connection:  # as if the two seeds were two points of a grid
            connection.execute("UPDATE runs SET alpha = seed / 4 WHERE arm = 'shuffled'")
        return report.fn(config, found, trained, [users], STAGES).page.file
