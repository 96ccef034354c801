"""No answer of an endpoint ends the asking, or becomes a profile or a bill by mistake.

The first part asks `judge` and the readers directly; the second one drives the profiles stage
against a server, one oddity a user.
"""

import gzip
import json
import random
import re
import time

import pyarrow as pa
import pytest
from werkzeug import Response

from models.config import LLM, History, Profiles
from models.errors import BadInput
from models.llm.completion import parsed, usage_of, words_of
from models.llm.failures import failure_of
from models.llm.response_checks import judge
from models.schemas import INTERACTIONS, ITEMS
from tasks.llm.endpoint import endpoint
from tasks.storage.artifacts import read_parquet, write_parquet
from tests.support.fake_llm import answer, completion, config, failure, reasons, run, texts

pytest_plugins = ("tests.support.fake_llm",)
pytestmark = pytest.mark.usefixtures("data_dir")

TASTE = "This viewer loves quiet dramas, and avoids noisy films."


def said(content, finish_reason="stop", **message):
    choice = {"message": {"content": content, **message}, "finish_reason": finish_reason}
    return judge({"choices": [choice]}, Profiles())


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\nOkay, the user wants one paragraph. They gave 7.\n</think>\n\n{TASTE}",
        f"The user wants one paragraph. Wait, let me count.\n</think>\n\n{TASTE}",
        f"<Thinking>Hm.</Thinking>{TASTE}",
        f"[THINK]Hm.[/THINK]{TASTE}",
        f"<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>{TASTE}<|return|>",
        f"{TASTE}<|im_end|>",
        f"Here is the paragraph you asked for:\n\n{TASTE}\n\nLet me know if you'd like changes!",
        f"Here’s a short profile of the viewer: {TASTE}",
        f"Sure! Here is a summary:\n{TASTE}\n\n---\n\nI hope this helps!",
        f"Certainly! {TASTE}",
        f"Of course. Below is the description:\n\n{TASTE}\n\n(Word count: 9)",
        f"Here is the paragraph you asked for:\n\n**Taste:** {TASTE}",
        f"**Viewer Profile**\n\n{TASTE}",
        f"## Taste\n{TASTE}\n\nNote: I based this on the ratings.",
        f"```text\n{TASTE}\n```",
        f'"{TASTE}"',
        f"\ufeff{TASTE}\ud800\x00",
        [
            {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
            {"type": "text", "text": TASTE},
        ],
        [TASTE],
        [{"text": {"value": TASTE}}],
    ],
)
def test_reasoning_and_talk_are_no_part_of_a_profile(text):
    assert said(text) == (TASTE, None)


@pytest.mark.parametrize(
    "text",
    [
        "Here, in noir, this viewer is at home: a taste for shadows.",
        "Surely a fan of westerns. Great films of the fifties are what this viewer seeks.",
        "The user wants stories with strong heroines. They avoid war films.",
        "This is a viewer with a taste for noir.\n\nThey avoid musicals.",
        "Likes: drama.\nAvoids: horror.",
        "Okay with slow films; let down by sequels.",
    ],
)
def test_ordinary_profiles_stay_as_they_are(text):
    assert said(text) == (text, None)


@pytest.mark.parametrize(
    ("content", "more", "reason"),
    [
        ("<think>Let me see, 7 films", {}, "reasoning without an answer"),
        (
            "Okay, the user wants me to write a paragraph. I need to",
            {},
            "reasoning without an answer",
        ),
        (None, {"reasoning_content": "thinking …"}, "reasoning without an answer"),
        (None, {"tool_calls": [{"function": {}}]}, "a tool call instead of a text"),
        ([{"type": "refusal", "refusal": "no"}], {}, "empty"),
        ("...", {}, "empty"),
        ("\u200b", {}, "empty"),
        (7, {}, "malformed answer"),
        ({"text": TASTE}, {}, "malformed answer"),
        (TASTE, {"finish_reason": "SAFETY"}, "refused"),
        (TASTE, {"finish_reason": "MAX_TOKENS"}, "truncated at max_tokens"),
        (TASTE, {"refusal": "I cannot"}, "refused"),
    ],
)
def test_what_is_no_profile_has_its_reason(content, more, reason):
    assert said(content, **more) == (None, reason)


@pytest.mark.parametrize(
    "odd",
    [
        None,
        [],
        7,
        "x",
        {},
        {"choices": {}},
        {"choices": [None]},
        {"choices": [{"message": []}]},
        {"choices": [{"message": {}, "finish_reason": []}]},
    ],
)
def test_any_json_is_judged(odd):
    text, reason = judge(odd, Profiles())
    assert text is None
    assert reason in ("malformed answer", "empty")


@pytest.mark.parametrize(
    ("count", "known"),
    [
        (5, 5),
        (5.0, 5),
        ("5", 5),
        (-5, None),
        (2**70, None),
        (10**400, None),
        (True, None),
        (float("nan"), None),
        (float("inf"), None),
        ([5], None),
        ("many", None),
        (None, None),
    ],
)
def test_a_count_that_cannot_be_true_is_none(count, known):
    assert usage_of({"usage": {"prompt_tokens": count, "completion_tokens": 1}}) == (known, 1)
    assert usage_of({"usage": [count]}) == (None, None)


def test_brackets_huge_numbers_and_bad_bytes_are_no_json():
    for content in (b"[" * 200_000, b"1" * 5000, b"\xff\xfe{", b"", b"<html>"):
        assert parsed(content) is None
    assert parsed(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


REFUSALS = {
    "prompt": [
        (
            400,
            {
                "error": {
                    "message": "Filtered: it triggers our content management policy.",
                    "code": "content_filter",
                    "param": "prompt",
                }
            },
        ),
        (
            403,
            {
                "error": {
                    "code": 403,
                    "message": "Your chosen model requires moderation and your input was flagged",
                }
            },
        ),
        (400, {"error": {"message": "Content Exists Risk", "type": "invalid_request_error"}}),
        (451, None),
    ],
    "length": [
        (
            400,
            {
                "error": {
                    "message": "This model's maximum context length is 300 tokens, you sent 400.",
                    "code": "context_length_exceeded",
                    "param": "messages",
                }
            },
        ),
        (
            400,
            {
                "error": {
                    "code": 400,
                    "message": "the request exceeds the available context size",
                    "type": "exceed_context_size_error",
                }
            },
        ),
        (
            400,
            {
                "object": "error",
                "message": "'max_tokens' is too large: 500. The maximum context length is 4096",
            },
        ),
        (400, {"error": {"message": "prompt is too long: 215000 tokens > 200000 maximum"}}),
        (
            422,
            {
                "error": "`inputs` tokens + `max_new_tokens` must be <= 4097",
                "error_type": "validation",
            },
        ),
        (413, "<html>413 Request Entity Too Large</html>"),
    ],
    "run": [
        (
            400,
            {
                "error": {
                    "message": "'max_tokens' is not supported. Use 'max_completion_tokens'.",
                    "code": "unsupported_parameter",
                    "param": "max_tokens",
                }
            },
        ),
        (
            422,
            {
                "object": "error",
                "message": {
                    "detail": [
                        {
                            "type": "extra_forbidden",
                            "loc": ["body", "seed"],
                            "msg": "Extra inputs are not permitted",
                        }
                    ]
                },
            },
        ),
        (
            400,
            {
                "error": {
                    "message": "max_tokens is too large: at most 4096 completion tokens",
                    "param": "max_tokens",
                }
            },
        ),
        (400, {"error": {"message": "Invalid model: gpt-9"}}),
        (404, {"detail": "Not Found"}),
        (401, {}),
        (402, {}),
        (405, {}),
        (308, {}),
        (429, {"error": {"code": "insufficient_quota", "message": "no money"}}),
    ],
    "passing": [
        (429, {"error": {"message": "Rate limit reached. Please reduce your requests"}}),
        (503, "<html>busy</html>"),
        (529, {}),
        (408, {}),
    ],
    "unclear": [(400, {"error": {"message": "Invalid unicode in the input"}}), (422, {})],
}


@pytest.mark.parametrize(
    ("scope", "status", "body"), [(s, *case) for s, cases in REFUSALS.items() for case in cases]
)
def test_a_refusal_says_whom_it_concerns(scope, status, body):
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    assert failure_of(status, content).scope == scope


def test_the_words_of_a_server_are_found_wherever_they_are():
    detail = {"message": {"detail": [{"loc": ["body", "seed"], "msg": "not permitted"}]}}
    assert words_of(json.dumps(detail).encode()) == "body.seed: not permitted"
    assert (
        words_of(b"<html><title>x</title><b>502</b> Bad\x1b[31m Gateway") == "502 Bad[31m Gateway"
    )
    assert words_of(json.dumps([{"error": {"message": "a" * 999}}]).encode()).endswith("…")


def test_addresses_keep_their_query_and_lose_what_the_client_adds():
    for url, address in {
        "https://x/v1/chat/completions": "https://x/v1",
        "https://x/v1/chat/completions/?api-version=1": "https://x/v1?api-version=1",
        " https://x/v1/ ": "https://x/v1",
    }.items():
        assert endpoint(LLM(base_url=url)) == address


def test_reasoning_models_are_sent_what_they_know_and_null_is_left_out(llm):
    run(config(llm, model="o3-mini"), "Heat")
    run(config(llm, temperature=None, max_tokens=None, seed=None), "Heat")
    run(config(llm, rename={"seed": "random_seed"}), "Heat")
    names = [set(request) - {"model", "messages"} for request in llm.requests]
    assert names == [
        {"max_completion_tokens", "seed"},
        set(),
        {"temperature", "max_tokens", "random_seed"},
    ]
    with pytest.raises(BadInput, match="budget_usd is set, but max_tokens is null"):
        run(config(llm, max_tokens=None, budget_usd=1), "Fargo")


def test_a_query_is_sent_as_one(llm):
    run(config(llm, base_url=f"{llm.url}/chat/completions?api-version=2024-06-01"), "Heat")
    ((request, _),) = llm.server.log
    assert (request.path, request.query_string) == (
        "/v1/chat/completions",
        b"api-version=2024-06-01",
    )
    assert request.headers["api-key"] == "sk-very-secret"


def usage(**counts):
    body = json.loads(completion(TASTE).get_data())
    return Response(json.dumps(body | {"usage": counts}), content_type="application/json")


def raw(content, **headers):
    return Response(content, headers=headers, content_type="application/json")


ODD = (
    None,
    True,
    -1,
    0,
    7,
    2**70,
    10**400,
    1.5,
    float("nan"),
    "",
    "\ud800\x1b[31m",
    "x" * 9999,
    [],
    [[]],
    {},
    {"a": None},
    [None, 7],
    {"text": 7},
)


def mutated(chance: random.Random, value):
    """Replace some part of a JSON value by another, or leave it out."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.25:
        return chance.choice(ODD)
    if isinstance(value, list):
        return [mutated(chance, value[0])] * chance.choice((1, 2))
    key = chance.choice(list(value))
    changed = {name: part for name, part in value.items() if name != key}
    return changed if chance.random() < 0.2 else changed | {key: mutated(chance, value[key])}


def odd_answer(number: int):
    """One of endlessly many odd answers of status 200."""
    chance = random.Random(number)
    good = json.loads(completion(TASTE).get_data())
    content = json.dumps(mutated(chance, good)).encode()
    cut = content[: chance.randrange(len(content))]
    return chance.choice(
        [
            lambda: raw(content),
            lambda: raw(content),
            lambda: raw(content),
            lambda: raw(cut),
            lambda: raw(gzip.compress(content)[:-9], **{"Content-Encoding": "gzip"}),
            lambda: raw(content, **{"Content-Encoding": "gzip"}),
            lambda: raw(b"\xef\xbb\xbf" + content),
            lambda: raw(content.decode().encode("utf-16")),
            lambda: raw(b"[" * 200_000),
            lambda: raw(b'{"a":' * 100_000),
            lambda: Response(content, content_type="text/html; charset=nonsense"),
            lambda: Response("<html>Sign in</html>", content_type="text/html"),
            lambda: Response(
                b'data: {"choices": []}\n\ndata: [DONE]', content_type="text/event-stream"
            ),
            lambda: raw(json.dumps({"error": mutated(chance, {"message": "m", "code": 429})})),
            lambda: Response(b"", 204),
        ]
    )()


RAW = (
    r"Traceback|object has no attribute|Errno|Expecting value|codec can|not subscriptable|Exception"
)


def test_a_hundred_odd_answers_end_no_run(llm):
    titles = {f"Film {n}": n for n in range(100)}
    llm.default = lambda request: odd_answer(
        titles[request["messages"][-1]["content"].split('"')[1]]
    )
    settings = config(
        llm, 1.0, max_retries=0, concurrency=4, budget_usd=100, tokens_per_minute=10**9
    )
    result = run(settings, *titles)
    found = reasons(result)
    assert 0 < result.missing < 100
    assert not [reason for reason in found if reason == "not asked"]
    assert not re.findall(RAW, " ".join(filter(None, found)))
    for text in filter(None, texts(result).values()):
        assert text.isprintable()
    counts = read_parquet(result.calls)["prompt_tokens"].to_pylist()
    assert all(count is None or 0 < count <= 3 * 10_000_000 for count in counts)


@pytest.mark.parametrize("status", [301, 400, 403, 404, 413, 418, 422, 429, 500, 599])
def test_odd_errors_end_a_run_in_a_sentence_if_at_all(llm, status):
    def reply(_):
        response = odd_answer(len(llm.requests))
        response.status_code = status
        return response

    llm.default = reply
    with pytest.raises(BadInput) as error:
        run(config(llm, max_retries=0, concurrency=2), "Heat", "Fargo", "Alien")
    assert not re.findall(RAW, str(error.value))
    assert str(error.value).startswith("profiles")


def test_what_concerns_one_prompt_is_that_users_missing_profile(llm):
    words = "The response was filtered due to the content management policy"
    llm.script = {
        "Heat": [lambda _: failure(400, words)],
        "Alien": [lambda _: failure(422, "Bad bytes")],
    }
    result = run(config(llm, 0.7, concurrency=1), "Fargo", "Heat", "Alien")
    assert reasons(result) == [None, f"refused: {words}", "HTTP 422: Bad bytes"]
    assert llm.titles() == {"Heat": 1, "Fargo": 1, "Alien": 1}
    assert "2 of 3 profiles (66.7%) are missing: 1 refused, 1 HTTP 422" in result.warnings[0]


def test_what_concerns_every_request_ends_the_run_also_if_no_word_says_so(llm):
    llm.default = lambda _: failure(400, "Bad thing")
    with pytest.raises(BadInput, match=r"answered 400 to model gpt-4o-mini: Bad thing\."):
        run(config(llm, 1.0, concurrency=2), *[f"Film {n}" for n in range(9)])
    assert len(llm.requests) <= 4
    llm.default = lambda _: failure(400, "Unsupported value: 'temperature' does not support 0.0")
    with pytest.raises(BadInput, match=r"Set profiles\.llm\.temperature to null"):
        run(config(llm, 1.0, concurrency=1), "Heat", "Fargo")


def test_an_error_inside_a_success_is_the_error_that_it_is(llm):
    def within(code, message):
        body = json.dumps({"error": {"code": code, "message": message}})
        return lambda _: raw(body, **{"retry-after": "1"})

    llm.script = {
        "Heat": [within(429, "Provider returned error")],
        "Fargo": [within(None, "Out of luck")] * 9,
    }
    result = run(config(llm, 0.5, max_retries=1), "Heat", "Fargo")
    assert reasons(result) == [None, "HTTP 500: Out of luck"]
    assert max(llm.times) - min(llm.times) >= 1
    with pytest.raises(BadInput, match=r'1 HTTP 500 .the endpoint said "Out of luck"'):
        run(config(llm, max_retries=0), "Fargo")


def test_an_answer_has_a_total_time(llm):
    def trickle():
        for _ in range(60):
            time.sleep(0.1)
            yield b" "

    llm.script = {"Heat": [lambda _: raw(trickle())] * 2}
    began = time.monotonic()
    result = run(config(llm, 0.5, total_seconds=0.5, max_retries=0), "Heat", "Fargo")
    assert reasons(result) == ["timed out", None]
    assert time.monotonic() - began < 5


def test_counts_that_cannot_be_true_leave_the_budget_as_it_is(llm, tmp_path):
    (tmp_path / "p.yaml").write_text(
        "date: 2026-01-02\nprices: {m: {input_per_million: 0, output_per_million: 1000000}}"
    )
    llm.default = lambda _: usage(prompt_tokens=-(10**9), completion_tokens=-(10**9))
    dear = {"model": "m", "max_tokens": 16, "prices": str(tmp_path / "p.yaml"), "budget_usd": 40}
    result = run(config(llm, 1.0, concurrency=1, **dear), "Heat", "Fargo", "Alien")
    assert (len(llm.requests), result.unasked, result.cost_usd) == (2, 1, None)


def test_a_null_body_is_an_answer_of_no_use_and_counts(llm):
    llm.default = lambda _: raw("null")
    result = run(config(llm, 1.0), "Heat")
    assert (reasons(result), len(llm.requests)) == (["malformed answer"], 3)


LISTS_ALL = (
    """{% block user %}Likes {% for film in history %}{{ film.title }} {% endfor %}{% endblock %}"""
)


@pytest.mark.parametrize("policy", ["shorten", "missing"])
def test_a_history_too_long_for_the_model_is_shortened_and_said(llm, policy):
    from models.profiles.provenance import has_record, record
    from models.profiles.user_history import select
    from tasks.profiles.profiles_task import profiles

    def reply(request):
        films = request["messages"][-1]["content"].count('"') // 2
        return failure(400, "maximum context length is 5 films") if films > 5 else answer(request)

    llm.default = reply
    rows = [
        (user, f"i{n}", float(n % 5), n)
        for user, size in (("ann", 12), ("bob", 3))
        for n in range(size)
    ]
    train = pa.table(list(zip(*rows, strict=True)), INTERACTIONS.names).cast(INTERACTIONS)
    films = [(f"i{n}", f"Film {n}", None, None) for n in range(12)]
    items = pa.table(list(zip(*films, strict=True)), ITEMS.names).cast(ITEMS)
    handles = write_parquet("split", train), write_parquet("items", items)
    history = History(limit=10, too_long=policy)
    settings = config(llm, 1.0).model_copy(update={"history": history})
    result = profiles.fn(settings, LISTS_ALL, *handles)
    assert len(llm.requests) == (3 if policy == "shorten" else 2)
    if policy == "missing":
        assert reasons(result)[0].startswith("longer than the model's context: maximum")
        return
    assert reasons(result) == [None, None]
    assert texts(result)["ann"].count("Film") == 5
    assert (
        "1 of 2 profiles are written from fewer interactions (at most 5, not 10)"
        in result.warnings[0]
    )
    shown = record(select(train, history.model_copy(update={"limit": 5})))
    assert has_record(read_parquet(result.profiles), shown).to_pylist() == [True, True]
    assert profiles.fn(settings, LISTS_ALL, *handles).warnings == result.warnings
