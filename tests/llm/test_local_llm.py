"""A real, small LLM end to end: optional, for it needs `make local-llm` and some minutes.

    make local-llm                                             # in one terminal
    LLMKT_LOCAL_LLM_URL=http://127.0.0.1:8080/v1 .venv/bin/python -m pytest
    tests/llm/test_local_llm.py

SmolLM2-135M's profiles are worth nothing: it is a partner for the protocol, not for results.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tasks.storage.artifacts import PROJECT_ROOT

URL = os.environ.get("LLMKT_LOCAL_LLM_URL")
USERS = 50

PROMPT = """{% block system %}You describe tastes in one short sentence.{% endblock %}
{% block user %}A viewer liked {{ history[0].title }}. Describe the viewer's taste.{% endblock %}
"""
CONFIG = """
experiment: local-llm
dataset: {{name: slice, path: {folder}}}
split: {{short_histories: train}}
profiles:
  provider: openai
  prompt: {folder}/short.j2
  history: {{limit: 1, order: best}}
  max_missing: 0.5
  llm: {{base_url: "{url}", model: smollm2, api_key_env: LLMKT_TEST_KEY, concurrency: 1,
        max_tokens: 200, timeout_seconds: 300}}
targets: {{reduction: pca}}
models: {{BPR: {{hyperparameters: {{embedding_size: 8}}}}}}
training: {{epochs: 4, patience: 2, seeds: [1]}}
"""


def write_slice(folder: Path) -> None:
    """The first users of ml-100k, as its own atomic files."""
    recbole = find_spec("recbole")
    assert recbole is not None
    source = Path(recbole.submodule_search_locations[0]) / "dataset_example" / "ml-100k"
    header, *rows = (source / "ml-100k.inter").read_text().splitlines()
    kept = [row for row in rows if int(row.split("\t")[0]) <= USERS]
    (folder / "slice.inter").write_text("\n".join([header, *kept]) + "\n")
    (folder / "slice.item").write_bytes((source / "ml-100k.item").read_bytes())


@pytest.mark.skipif(URL is None, reason="LLMKT_LOCAL_LLM_URL is not set: no `make local-llm` runs")
def test_the_pipeline_with_a_real_llm(tmp_path, prefect_server):
    write_slice(tmp_path)
    (tmp_path / "short.j2").write_text(PROMPT)
    config = tmp_path / "slice.yaml"
    config.write_text(CONFIG.format(folder=tmp_path, url=URL))
    environment = os.environ | {
        "LLMKT_DATA_DIR": str(tmp_path / "data"),
        "LLMKT_TEST_KEY": "none",
        "PREFECT_API_URL": prefect_server,
    }
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", str(config), "--json"],
        cwd=PROJECT_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with duckdb.connect(str(tmp_path / "data" / "results.duckdb"), read_only=True) as results:
        sources = results.execute("SELECT DISTINCT profile_source, llm_model FROM runs").fetchall()
        calls = results.execute(
            "SELECT count(*), min(completion_tokens), min(latency_seconds) FROM llm_calls"
        ).fetchone()
    assert ("openai", "smollm2") in sources
    assert calls[0] >= USERS // 2
    assert calls[1] > 0
    assert calls[2] > 0
    tables = map(pq.read_table, (tmp_path / "data" / "artifacts" / "profiles").glob("*.parquet"))
    (profiles,) = (table for table in tables if "text" in table.column_names)
    texts = profiles["text"].drop_null()
    assert profiles.num_rows == USERS
    assert len(pc.unique(texts)) > USERS // 4
