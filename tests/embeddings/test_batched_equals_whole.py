"""What is done in batches is what would be done at once."""

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import scale, synthetic
from models.config import Embeddings, Profiles, Split, Targets
from models.embeddings.text_batches import to_matrix, to_table
from models.errors import BadInput
from models.profiles.prompt_templates import Template
from models.schemas import EMBEDDING, INTERACTIONS, ITEMS, TARGET, TEXT, USER
from models.targets.reduction import moments, reduce
from tasks.dataset.split_task import split
from tasks.embeddings import embeddings_task
from tasks.embeddings.embeddings_task import embeddings
from tasks.profiles.history_batches import records
from tasks.profiles.llm_writer import questions
from tasks.profiles.profiles_task import profiles
from tasks.profiles.request import Request
from tasks.storage import artifact_batches
from tasks.storage.artifacts import read_parquet, write_parquet
from tasks.targets import targets_task
from tasks.targets.targets_task import targets

pytestmark = pytest.mark.usefixtures("data_dir", "no_run_logger")


def world(n_users: int = 40, seed: int = 0) -> tuple[pa.Table, pa.Table]:
    """Users with 3 to 30 of 60 items; some ratings, years and genres are missing; no order."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "user_id": f"u{user:02}",
            "item_id": f"i{item:02}",
            "rating": None if rng.random() < 0.1 else float(rng.integers(1, 6)),
            "timestamp": int(rng.integers(0, 1000)),
        }
        for user in range(n_users)
        for item in rng.choice(60, int(rng.integers(3, 31)), replace=False)
    ]
    items = [
        {
            "item_id": f"i{item:02}",
            "title": f"Film {item}",
            "year": None if item % 7 == 0 else 1950 + item,
            "genres": [["Drama", "War"], ["Comedy"], ["War", "unknown"], []][item % 4],
        }
        for item in range(60)
    ]
    rng.shuffle(rows)
    return (
        pa.Table.from_pylist(rows, schema=INTERACTIONS),
        pa.Table.from_pylist(items, schema=ITEMS),
    )


def in_batches(monkeypatch, rows: int) -> None:
    monkeypatch.setattr(artifact_batches, "ROWS_AT_ONCE", rows)
    monkeypatch.setattr(artifact_batches.Stream.by_user, "__defaults__", (rows,))


@pytest.mark.parametrize("strategy", ["random", "leave-one-out", "temporal"])
@pytest.mark.parametrize("is_sorted", [True, False])
def test_a_split_in_batches_is_the_split_at_once(monkeypatch, strategy, is_sorted):
    table, _ = world()
    handle = write_parquet("x", table.sort_by([("user_id", "ascending"), ("item_id", "ascending")]))
    whole = split.fn(Split(strategy=strategy, short_histories="drop"), handle)
    in_batches(monkeypatch, 50)
    if not is_sorted:
        handle = write_parquet("x", table)
    parts = split.fn(Split(strategy=strategy, short_histories="drop"), handle)
    for name in ("train", "valid", "test"):
        found, wanted = read_parquet(getattr(parts, name)), read_parquet(getattr(whole, name))
        assert found.num_rows
        assert found.replace_schema_metadata().equals(wanted.replace_schema_metadata())


def test_short_histories_are_counted_over_all_batches(monkeypatch):
    rows = [(f"u{n}", "i1", None, None) for n in range(7)]
    rows += [("v", f"i{n}", None, None) for n in range(9)]
    table = pa.table(list(zip(*rows, strict=True)), INTERACTIONS.names).cast(INTERACTIONS)
    in_batches(monkeypatch, 2)
    named = r"7 of 8 users .* user u0 \(1\), u1 \(1\), u2 \(1\), u3 \(1\), u4 \(1\), …\."
    with pytest.raises(BadInput, match=named):
        split.fn(Split(), write_parquet("x", table))


def test_whole_users_come_in_order_from_any_order(monkeypatch):
    table, _ = world()
    in_batches(monkeypatch, 50)
    parts = list(artifact_batches.Stream.of(write_parquet("x", table)).by_user())
    assert len(parts) > 5
    of_parts = [set(part[USER].to_pylist()) for part in parts]
    assert sum(map(len, of_parts)) == len(set().union(*of_parts)) == 40
    order = [(USER, "ascending"), ("item_id", "ascending")]
    assert pa.concat_tables(parts).equals(table.sort_by(order))


@pytest.mark.parametrize("seed", range(3))
def test_offline_profiles_in_batches_are_those_at_once(monkeypatch, seed):
    table, items = world(seed=seed)
    handles = write_parquet("x", table), write_parquet("items", items)
    whole = profiles.fn(Profiles(), "", *handles)
    in_batches(monkeypatch, 50)
    parts = profiles.fn(Profiles(), "", *handles)
    found, wanted = read_parquet(parts.profiles), read_parquet(whole.profiles)
    assert found[TEXT].to_pylist() == wanted[TEXT].to_pylist()
    assert found.replace_schema_metadata().equals(wanted.replace_schema_metadata())
    assert parts.provenance == whole.provenance == "train-only"
    assert len(set(found[TEXT].to_pylist())) == 40


@pytest.mark.parametrize("order", ["newest", "best", "stratified"])
def test_prompts_in_batches_are_those_at_once(monkeypatch, order):
    table, items = world()
    handles = write_parquet("x", table), write_parquet("items", items)
    config = Profiles.model_validate(
        {"provider": "openai", "history": {"order": order, "limit": 5}, "prompt": "mine"}
    )
    text = """{% block user %}{{ mean_rating }} {{ n_interactions }}
    {% for film in liked %}{{ film.title }} {{ film.rating }}; {% endfor %}{% endblock %}"""
    request = Request(config, Template(text=text), *handles)
    whole = list(questions(request))
    seen = records(handles[0], config.history)
    in_batches(monkeypatch, 50)
    assert list(questions(request)) == whole
    assert len(whole) == 40
    assert records(handles[0], config.history).equals(seen)
    assert seen[USER].to_pylist() == [user for user, _ in whole]


def written(texts) -> pa.Table:
    keys = [f"u{n:02}" for n in range(len(texts))]
    return pa.table({USER: keys, TEXT: pa.array(texts, pa.string())})


def test_embeddings_in_batches_are_those_at_once(monkeypatch):
    texts = ["one two", None, "three", "one two", " ", "four five", "three", "six"]
    handle = write_parquet("profiles", written(texts))
    config = Embeddings(provider="hashing", dimensions=32)
    whole = embeddings.fn(config, handle)
    assert (whole.texts_cached, whole.texts_embedded) == (0, 4)
    assert whole.model == "hashing, 32-d (no language model)"
    monkeypatch.setattr(embeddings_task, "PROFILES_AT_ONCE", 3)
    again = embeddings.fn(config, handle)
    assert again.texts_embedded == 0
    other = embeddings.fn(config.model_copy(update={"dimensions": 31}), handle)
    assert (other.texts_cached, other.texts_embedded) == (0, 4)
    found, wanted = read_parquet(again.embeddings), read_parquet(whole.embeddings)
    assert found[USER].to_pylist() == ["u00", "u02", "u03", "u05", "u06", "u07"]
    assert found.replace_schema_metadata().equals(wanted.replace_schema_metadata())
    assert other.width == 31


def test_nobody_with_a_text_is_refused_in_batches_too(monkeypatch):
    monkeypatch.setattr(embeddings_task, "PROFILES_AT_ONCE", 2)
    handle = write_parquet("profiles", written([None, " ", ""]))
    with pytest.raises(BadInput, match="nobody has a text"):
        embeddings.fn(Embeddings(provider="hashing"), handle)


def vectors(n: int = 300, width: int = 12):
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(n, width)) * np.linspace(0.2, 2, width) + 3
    table = to_table(pa.array([f"u{k:03}" for k in range(n)]), EMBEDDING, matrix.astype("f4"))
    return write_parquet("embeddings", table), to_matrix(table[EMBEDDING])


@pytest.mark.parametrize("scale", ["global", "per-coordinate", "none"])
@pytest.mark.parametrize("reduction", ["pca", "none"])
def test_targets_in_batches_are_those_at_once_up_to_rounding(monkeypatch, reduction, scale):
    handle, matrix = vectors()
    config = Targets(reduction=reduction, scale=scale)
    width = 5 if reduction == "pca" else None
    monkeypatch.setattr(targets_task, "AT_ONCE", 64)
    made = targets.fn(config, handle, width, True)
    table = read_parquet(made.targets)
    assert table[USER].to_pylist() == [f"u{k:03}" for k in range(300)]
    found = to_matrix(table[TARGET])
    np.testing.assert_allclose(found, reduce(matrix, width, config), atol=2e-5)
    assert made.width == found.shape[1]
    kept = targets.fn(config, handle, width, True, made.kept(config.refit))
    assert (kept.refit, kept.unchanged) == ("kept", 300)
    other = config.model_copy(update={"centre": False})
    again = targets.fn(other, handle, width, True, made.kept(config.refit))
    assert again.refit == "other settings"
    assert again.targets.sha256 == targets.fn(other, handle, width).targets.sha256


def test_equal_embeddings_are_refused_in_batches_too(monkeypatch):
    table = to_table(pa.array([str(n) for n in range(9)]), EMBEDDING, np.ones((9, 3), "f4"))
    monkeypatch.setattr(targets_task, "AT_ONCE", 4)
    with pytest.raises(BadInput, match="all 9 embeddings are equal"):
        targets.fn(Targets(reduction="pca"), write_parquet("embeddings", table), 2)


def test_moments_of_batches_are_those_of_the_whole():
    matrix = np.random.default_rng(0).normal(5, 2, size=(50, 3)) * [1, 10, 0.1]

    def source():
        return iter(np.split(matrix, [7, 8, 30]))

    mean, variances = moments(source)
    np.testing.assert_allclose(mean, matrix.mean(axis=0))
    np.testing.assert_allclose(variances, matrix.var(axis=0))
    mean, covariance = moments(source, covariance=True)
    np.testing.assert_allclose(mean, matrix.mean(axis=0))
    np.testing.assert_allclose(covariance, np.cov(matrix.T, bias=True))


def test_moments_lose_no_digits_to_what_all_rows_share():
    matrix = np.random.default_rng(0).normal(size=(50, 3)) + 1e8
    mean, variances = moments(lambda: iter(np.split(matrix, [20])))
    np.testing.assert_allclose(mean, matrix.mean(axis=0))
    np.testing.assert_allclose(variances, matrix.var(axis=0), rtol=1e-6)


def run(users: int, each: int, seconds: float) -> scale.Run:
    cpu = dict.fromkeys(scale.STAGES, seconds / len(scale.STAGES))
    return scale.Run(synthetic.Size(users, each), users * each, cpu, cpu, users / 1e6, {}, {})


def test_the_exponent_compares_sizes_of_equal_interactions_per_user_alone():
    linear = [run(10, 100, 1), run(100, 100, 10), run(100, 30, 4), run(1000, 30, 40)]
    assert scale.exponent_of(linear) == 1
    # Exponents 1 and 2 with equal spans: their mean; by users alone it would be less than 1.
    steeper = [run(10, 100, 1), run(100, 100, 10), run(100, 30, 0.01), run(1000, 30, 1)]
    assert scale.exponent_of(steeper) == 1.5
    assert scale.exponent_of([run(10, 100, 1), run(100, 30, 4)]) is None
    assert scale.peak_of([run(2_000_000, 30, 9), run(10, 100, 1)]) == 2


def test_synthetic_users_have_the_interactions_that_they_should():
    size = synthetic.Size(3000, 30)
    rng = np.random.default_rng(0)
    users, items, ratings, _ = next(synthetic.interactions_of(size, rng))
    counts = np.bincount(users)
    assert len(counts) == 3000
    assert counts.min() >= synthetic.FEWEST
    assert 26 < counts.mean() < 32
    assert np.quantile(counts, 0.99) > 4 * np.median(counts)
    assert len(np.unique(users * size.items + items)) == len(users)
    popularity = np.sort(np.bincount(items, minlength=size.items))[::-1]
    assert popularity[: size.items // 10].sum() > 0.35 * len(items)
    assert set(np.unique(ratings)) == {1, 2, 3, 4, 5}
