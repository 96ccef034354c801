"""The key is left nowhere, whatever happens, and the provider learns no user's id."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import duckdb
import httpx
import pyarrow.parquet as pq
import pytest
from prefect.settings import get_current_settings
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tasks.storage.artifacts import PROJECT_ROOT
from tests.support.fake_llm import FakeLLM, answer, failure
from tests.support.toy_project import World
from tests.support.toy_world import MEDIUM

pytest_plugins = ("tests.support.fake_llm",)

CANARY = "sk-canary-7f3a91c2e5d84b60"
USER = "Zq7Xw{}Kj9V"
CONFIG = """
experiment: secret
dataset: {{name: toy, path: {folder}, title: title, year: year, genres: genres}}
profiles: {{provider: openai, prompt: {prompt}, llm: {{base_url: "{url}", budget_usd: 1}}}}
embeddings: {{provider: openai, model: text-embedding-3-small, base_url: "{url}"}}
targets: {{reduction: pca}}
models: {{BPR: {{hyperparameters: {{embedding_size: 4, train_batch_size: 64}}}}}}
training: {{epochs: 2, patience: 2, seeds: [1], arms: [baseline, transfer]}}
"""


def embed(request: Request, bodies: list[str]) -> Response:
    bodies.append(request.get_data(as_text=True))
    texts = json.loads(bodies[-1])["input"]
    rows = [
        {"object": "embedding", "index": n, "embedding": [len(text), text.count("e"), n, 1.0]}
        for n, text in enumerate(texts)
    ]
    body = {"object": "list", "data": rows, "model": "m", "usage": {"total_tokens": 1}}
    return Response(json.dumps(body), content_type="application/json")


def rows_of(file: Path) -> Iterator[object]:
    """What is in a file, out of its packing."""
    kind = file.read_bytes()[:16]
    if kind.startswith(b"PAR1"):
        yield pq.read_metadata(file).metadata
        yield from pq.read_table(file).to_pylist()
    elif kind.startswith(b"SQLite format 3"):
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
            yield from connection.iterdump()
    elif file.suffix == ".duckdb":
        with duckdb.connect(str(file), read_only=True) as connection:
            for (table,) in connection.execute("SELECT name FROM (SHOW TABLES)").fetchall():
                yield from connection.table(table).fetchall()


def holders(files: list[Path], text: str) -> set[str]:
    """The kinds of files that hold a text, packed or not."""
    found = set()
    for file in files:
        plain = text.encode() in file.read_bytes()
        if plain or any(text in str(row) for row in rows_of(file)):
            found.add(file.suffix or file.name)
    return found


def prefect_database() -> Path:
    """Where the temporary server of the tests keeps what it is told."""
    url = get_current_settings().server.database.connection_url
    assert url is not None
    return Path(url.get_secret_value().partition(":///")[2].partition("?")[0])


def test_a_temporary_server_lets_no_web_page_use_it(prefect_server: str):
    foreign = {"Origin": "https://evil.example"}
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "*"}
    preflight = httpx.options(f"{prefect_server}/deployments/", headers=foreign | asks, timeout=120)
    assert preflight.status_code == 400
    body = '{"name": "x", "flow_id": "x"}'
    for kind in ({"Content-Type": "text/plain"}, {}):  # sent by a page without asking before
        simple = httpx.post(
            f"{prefect_server}/deployments/", content=body, headers=foreign | kind, timeout=120
        )
        assert simple.status_code >= 400
        assert "access-control-allow-origin" not in {*preflight.headers, *simple.headers}


def test_no_file_no_log_and_no_database_holds_the_key(
    tmp_path: Path,
    prefect_server: str,
    server: HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.delenv("LLMKT_DATA_DIR", raising=False)
    bodies: list[str] = []
    server.clear()
    llm = FakeLLM(server)
    server.expect_request("/v1/chat/completions").respond_with_handler(llm.handle)
    server.expect_request("/v1/embeddings").respond_with_handler(lambda r: embed(r, bodies))
    MEDIUM.write(tmp_path)
    interactions = tmp_path / "toy.inter"
    header, *rows = interactions.read_text().splitlines()
    renamed = [
        USER.format(user) + "\t" + rest for user, _, rest in (r.partition("\t") for r in rows)
    ]
    interactions.write_text("\n".join([header, *renamed]) + "\n")
    config = tmp_path / "secret.yaml"
    prompt = PROJECT_ROOT / "prompts" / "user-movies.j2"
    config.write_text(CONFIG.format(folder=tmp_path, prompt=prompt, url=llm.url))
    world = World(tmp_path, tmp_path / "data", config, prefect_server)

    llm.default = lambda _: failure(401, f"Incorrect API key provided: {CANARY}")
    refused = world.process("run", str(config), "--verbose", OPENAI_API_KEY=CANARY)
    assert refused.returncode == 2
    assert "Incorrect API key provided: [key]" in refused.stderr
    llm.default = answer
    done = world.llmkt("run", str(config), "--verbose", OPENAI_API_KEY=CANARY)
    assert done.returncode == 0, done.stderr

    printed = "".join(
        (refused.stdout, refused.stderr, done.stdout, done.stderr, *capfd.readouterr())
    )
    assert not [text for text in printed if CANARY in text]
    kept = [file for file in world.data.rglob("*") if file.is_file()]
    database = prefect_database()
    files = [*kept, database, *database.parent.glob(database.name + "-*")]
    # A search that finds what is there can be trusted not to have missed the key.
    assert {".parquet", ".sqlite"} <= holders(kept, "A profile of one who")
    assert {".duckdb", ".parquet"} <= holders(kept, USER.format("u1"))
    assert holders([database], "answered 401 to model gpt-4o-mini")
    assert holders(files, CANARY) == set()

    assert llm.keys == {f"Bearer {CANARY}"}
    sent = [json.dumps(request) for request in llm.requests] + bodies
    assert len(bodies) >= 1
    assert len(sent) > 50
    before, after = USER.split("{}")
    assert not any(before in body or after in body for body in sent)
