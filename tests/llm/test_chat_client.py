"""The profiles stage against a real HTTP server that misbehaves in every way it can."""

import socket
import threading
import time

import pytest
from werkzeug import Response

from models.errors import BadInput
from models.schemas import LLM_CALLS
from tasks.llm import answer_run, endpoint
from tasks.profiles.profiles_task import profiles
from tasks.storage.artifacts import read_parquet
from tests.support.fake_llm import (
    KEY,
    answer,
    completion,
    config,
    data,
    failure,
    reasons,
    run,
    slow,
    texts,
)

pytest_plugins = ("tests.support.fake_llm",)
pytestmark = pytest.mark.usefixtures("data_dir")


def test_every_user_gets_an_answer_and_the_bill_is_kept(llm):
    result = run(config(llm), "Heat", "Fargo")
    assert texts(result) == {
        "user-0": 'A profile of one who Likes "Heat".',
        "user-1": 'A profile of one who Likes "Fargo".',
    }
    calls = read_parquet(result.calls)
    assert calls.schema.remove_metadata() == LLM_CALLS
    assert calls["prompt_tokens"].to_pylist() == [10, 10]
    assert calls["completion_tokens"].to_pylist() == [4, 4]
    assert calls["cached"].to_pylist() == [False, False]
    keys = read_parquet(result.profiles)["profile_key"].to_pylist()
    assert calls["profile_key"].to_pylist() == sorted(keys)
    assert min(calls["latency_seconds"].to_pylist()) > 0
    assert (result.answers_paid, result.answers_cached, result.missing) == (2, 0, 0)
    # 10 · 0.15 + 4 · 0.60 dollars per million, for each.
    assert calls["cost_usd"].to_pylist() == pytest.approx([3.9e-6] * 2)
    assert (result.provenance, result.cost_usd) == ("train-only", pytest.approx(7.8e-6))
    request = llm.requests[0]
    assert {key: request[key] for key in ("model", "temperature", "max_tokens", "seed")} == {
        "model": "gpt-4o-mini",
        "temperature": 0.0,
        "max_tokens": 400,
        "seed": 7,
    }
    assert [message["role"] for message in request["messages"]] == ["system", "user"]
    assert llm.keys == {f"Bearer {KEY}"}


def test_retry_after_is_honoured(llm):
    llm.script["Heat"] = [lambda _: failure(429, **{"retry-after-ms": "", "retry-after": "1"})]
    result = run(config(llm), "Heat")
    assert result.missing == 0
    assert llm.times[1] - llm.times[0] >= 1.0


PATIENCE = 0.8
TROUBLE = {
    "500": lambda _: failure(500),
    "503": lambda _: failure(503),
    "slow": slow(2 * PATIENCE),
    "empty": lambda _: completion(""),
    "null": lambda _: completion(None),
    "truncated": lambda _: completion("half a sen", "length"),
    "refused": lambda _: completion(None, refusal="I cannot"),
    "malformed": lambda _: Response('{"choices": [{"mess', content_type="application/json"),
    "no choices": lambda _: Response('{"choices": []}', content_type="application/json"),
    "html": lambda _: Response("<html>busy</html>", content_type="text/html"),
    "cut off": lambda _: Response('{"choices": [', headers={"Content-Length": "999"}),
}


def patience(trouble) -> dict[str, float]:
    """A short time-out for what needs one, so that an answer under load is not late as well."""
    return {"timeout_seconds": PATIENCE} if trouble is TROUBLE["slow"] else {}


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
def test_trouble_passes(llm, trouble):
    llm.script["Heat"] = [trouble]
    result = run(config(llm, **patience(trouble)), "Heat")
    assert texts(result) == {"user-0": 'A profile of one who Likes "Heat".'}
    assert llm.titles() == {"Heat": 2}


def test_an_unusable_answer_is_asked_again_with_another_seed_and_on_the_bill(llm):
    llm.script["Heat"] = [lambda _: completion("")] * 2
    result = run(config(llm), "Heat")
    assert [request["seed"] for request in llm.requests] == [7, 8, 9]
    assert read_parquet(result.calls)["prompt_tokens"].to_pylist() == [30]


@pytest.mark.parametrize(
    ("trouble", "reason", "requests"),
    [
        (lambda _: completion(None, refusal="I cannot"), "refused", answer_run.ATTEMPTS),
        (lambda _: completion("x", "content_filter"), "refused", answer_run.ATTEMPTS),
        (
            lambda _: completion("half a sen", "length"),
            "truncated at max_tokens",
            answer_run.ATTEMPTS,
        ),
        (lambda _: completion("  "), "empty", answer_run.ATTEMPTS),
        (lambda _: Response("{", content_type="application/json"), "malformed answer", 3),
        (lambda _: failure(503), "HTTP 503: no", 2),
        (TROUBLE["slow"], "timed out", 2),
    ],
    ids=["refused", "filtered", "truncated", "empty", "malformed", "503", "slow"],
)
def test_lasting_trouble_leaves_a_profile_missing_with_its_reason(llm, trouble, reason, requests):
    llm.script["Heat"] = [trouble] * 9
    result = run(config(llm, 0.5, max_retries=1, **patience(trouble)), "Heat", "Fargo")
    assert texts(result) == {"user-0": None, "user-1": 'A profile of one who Likes "Fargo".'}
    assert reasons(result) == [reason, None]
    assert result.missing == 1
    assert llm.titles() == {"Heat": requests, "Fargo": 1}
    # Answers of no use cost money too.
    assert result.answers_paid == (2 if requests == answer_run.ATTEMPTS else 1)


def test_too_many_missing_stop_the_run_but_keep_the_answers(llm):
    llm.script = {
        "Heat": [lambda _: completion(None, refusal="no")] * 3,
        "Fargo": [lambda _: completion("x", "length")] * 3,
        "Alien": [lambda _: completion(None, refusal="no")] * 3,
    }
    titles = ("Heat", "Fargo", "Alien", "Brazil", "Crash")
    with pytest.raises(BadInput, match=r"3 of 5 profiles \(60.0%\).*2 refused, 1 truncated.*50.0%"):
        run(config(llm, max_missing=0.5), *titles)
    result = run(config(llm), *titles)
    assert llm.titles() == {"Heat": 4, "Fargo": 4, "Alien": 4, "Brazil": 1, "Crash": 1}
    calls = read_parquet(result.calls)
    assert sorted(calls["prompt_tokens"].to_pylist()) == [10, 10, 40, 40, 40]
    assert calls["cached"].to_pylist() == [False] * 5


def test_a_hopeless_endpoint_is_not_asked_to_the_end(llm):
    llm.default = lambda _: failure(500)
    titles = [f"Film {n}" for n in range(60)]
    with pytest.raises(BadInput, match="stopped"):
        run(config(llm, max_retries=0, concurrency=4), *titles)
    assert 3 * 4 <= len(llm.requests) < 3 * 4 + 4


@pytest.mark.parametrize(
    ("status", "fix"), [(401, "LLMKT_TEST_KEY"), (403, "key"), (404, "model"), (402, "quota")]
)
def test_a_refusal_stops_at_once_without_the_key_in_the_message(llm, status, fix):
    llm.script["Fargo"] = [lambda _: failure(status, f"Incorrect: {KEY}")]
    with pytest.raises(BadInput) as error:
        run(config(llm, concurrency=1), "Heat", "Fargo", "Alien", "Brazil")
    assert f"answered {status}" in str(error.value)
    assert "Incorrect: [key]" in str(error.value)
    assert fix in str(error.value)
    chain, seen = error.value, ""
    while chain is not None:
        seen, chain = seen + repr(chain), chain.__cause__ or chain.__context__
    assert KEY not in seen
    assert llm.titles() == {"Heat": 1, "Fargo": 1}
    run(config(llm), "Heat", "Fargo", "Alien", "Brazil")
    assert llm.titles() == {"Heat": 1, "Fargo": 2, "Alien": 1, "Brazil": 1}


def test_a_missing_key_stops_before_any_request(llm, monkeypatch):
    monkeypatch.setenv("LLMKT_TEST_KEY", " ")
    with pytest.raises(BadInput, match=r"LLMKT_TEST_KEY.*profiles\.llm\.api_key_secret"):
        run(config(llm), "Heat")
    assert llm.requests == []


def test_a_key_that_cannot_be_sent_is_not_shown(llm, monkeypatch):
    monkeypatch.setenv("LLMKT_TEST_KEY", "sk-…secret")
    with pytest.raises(BadInput, match="variable LLMKT_TEST_KEY holds characters") as error:
        run(config(llm), "Heat")
    assert "secret" not in str(error.value)


def test_the_key_may_come_from_a_prefect_secret(llm, monkeypatch):
    class Block:
        @classmethod
        def load(cls, name: str) -> "Block":
            if name != "my-key":
                raise ValueError(f"no block {name}")
            return cls()

        def get(self) -> str:
            return "from-the-block"

    monkeypatch.setattr(endpoint, "Secret", Block)
    with pytest.raises(BadInput, match=r"api_key_secret.*other"):
        run(config(llm, api_key_secret="other"), "Heat")
    run(config(llm, api_key_secret="my-key"), "Heat")
    assert llm.keys == {"Bearer from-the-block"}


def test_an_unreachable_endpoint_is_named_quickly(llm):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    began = time.monotonic()
    with pytest.raises(BadInput, match=f"{url} cannot be reached"):
        run(config(llm, base_url=url), "Heat")
    assert time.monotonic() - began < 20  # its time-outs and retries would take longer
    with pytest.raises(BadInput, match="localhost:8000 is no address"):
        run(config(llm, base_url="localhost:8000"), "Heat")


def test_a_faulty_template_stops_before_any_request(llm):
    with pytest.raises(BadInput, match=r"user-movies, line 1.*filmz"):
        profiles.fn(config(llm), "{% block user %}{{ filmz }}{% endblock %}", *data("Heat"))
    assert llm.requests == []


def test_concurrency_is_used_and_never_exceeded(llm):
    four = threading.Barrier(4)

    def together(request: dict) -> Response:
        four.wait(60)
        return answer(request)

    llm.default = together
    run(config(llm, concurrency=4, timeout_seconds=90), *[f"Film {n}" for n in range(24)])
    assert llm.most_in_flight == 4
