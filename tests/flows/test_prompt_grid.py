"""An experiment over prompts: each prompt's profiles are asked for once, and compared."""

import json

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner
from werkzeug import Request, Response

from flows.cli.main import app
from tasks.results.queries import comparison_rows
from tests.support.fake_llm import KEY, FakeLLM
from tests.support.toy_project import no_workers
from tests.support.toy_world import MEDIUM

pytest_plugins = ("tests.support.fake_llm",)

WIDTH = 16
PROMPT = """{% block system %}Describe.{% endblock %}
{% block user %}MANNER "{% for film in history %}{{ film.title }} {% endfor %}"{% endblock %}"""


def embed(request: Request) -> Response:
    """Vectors that depend on the text alone."""
    body = json.loads(request.get_data())
    data = [
        {
            "object": "embedding",
            "index": number,
            "embedding": list(np.random.default_rng([*text.encode()]).normal(size=WIDTH)),
        }
        for number, text in enumerate(body["input"])
    ]
    answer = {"object": "list", "data": data, "model": "fake", "usage": {}}
    return Response(json.dumps(answer), content_type="application/json")


@pytest.fixture
def grid(tmp_path, llm, server, monkeypatch, prefect_server):  # noqa: ARG001
    """An experiment over two prompt files."""
    server.expect_request("/v1/embeddings", "POST").respond_with_handler(embed)
    monkeypatch.setenv("LLMKT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("plain", "warm"):
        (tmp_path / f"{name}.j2").write_text(PROMPT.replace("MANNER", name))
    base = {
        "dataset": MEDIUM.write(tmp_path),
        "profiles": {"provider": "openai", "llm": {"base_url": llm.url}},
        "embeddings": {"provider": "openai", "base_url": llm.url, "model": "fake"},
        "targets": {"reduction": "pca"},
        "models": {"BPR": {"hyperparameters": {"embedding_size": 8, "train_batch_size": 64}}},
        "training": {"epochs": 2, "patience": 1, "seeds": [1]},
        "evaluation": {"k": [5, 10], "metrics": ["ndcg"]},
    }
    prompts = [str(tmp_path / f"{name}.j2") for name in ("plain", "warm")]
    path = tmp_path / "prompts.yaml"
    settings = {"experiment": "prompts", "base": base, "grid": {"profiles.prompt": prompts}}
    path.write_text(yaml.safe_dump(settings))
    with no_workers():
        yield path


def ran(path) -> dict:
    done = CliRunner().invoke(app, ["experiment", str(path), "--workers", "1", "--json"])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def asked(llm: FakeLLM) -> list[str]:
    """The questions since last time."""
    found = [request["messages"][-1]["content"] for request in llm.requests]
    llm.requests.clear()
    return found


def test_a_grid_over_prompts_asks_each_once_and_an_edit_costs_its_own_point(grid, llm):
    first = ran(grid)
    questions = asked(llm)
    plain, warm = (
        {text.partition(" ")[2] for text in questions if text.startswith(manner)}
        for manner in ("plain", "warm")
    )
    assert plain == warm  # the same users under both
    assert len(questions) == len(plain) + len(warm) == 120
    assert [point["state"] for point in first["points"]] == ["ok", "ok"]
    assert (first["ran"], first["cached"]) == (3, 0)  # the baseline is the same for both
    points = {point["point"] for point in first["points"]}
    compared = comparison_rows("prompts")
    assert {row["point"] for row in compared if row["arm"] == "transfer"} == points
    assert {row["profile_source"] for row in compared} == {"openai"}

    again = ran(grid)
    assert asked(llm) == []
    assert (again["ran"], again["cached"]) == (0, 3)
    assert again["comparison"] == first["comparison"]

    (grid.parent / "warm.j2").write_text(PROMPT.replace("MANNER", "hearty"))
    edited = ran(grid)
    questions = asked(llm)
    assert len(questions) == 60
    assert all(text.startswith("hearty") for text in questions)
    assert (edited["ran"], edited["cached"]) == (1, 2)
    before, after = (
        {row["point"]: row["arm_mean"] for row in summary["comparison"]}
        for summary in (first, edited)
    )
    (kept,) = (point for point in points if "plain" in point)
    assert before.keys() == after.keys() == points
    assert after[kept] == before[kept]
