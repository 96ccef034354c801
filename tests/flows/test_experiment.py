"""Experiments on a small data set: points that fail, share and are found again; searches."""

import json
from contextlib import nullcontext
from pathlib import Path

import duckdb
import pytest
import yaml
from typer.testing import CliRunner

from flows.cli.main import app
from flows.grid import hyperparameter_search
from flows.grid.hyperparameter_search import recall_searches, run_searches, searches_of
from flows.steps.preparation import load_data, prepare, split_data
from flows.steps.stage_runner import StageRunner
from models.errors import BadInput
from tasks.config.experiment_file import load_experiment
from tasks.storage.artifacts import PROJECT_ROOT
from tasks.training.training_task import training
from tests.support.toy_project import no_workers
from tests.support.toy_world import MEDIUM

SHIPPED = sorted((PROJECT_ROOT / "configs" / "experiments").glob("*.yaml"))
WIDTH = 16
SPACE = {
    "models.BPR.hyperparameters.learning_rate": {"low": 0.001, "high": 0.1, "log": True},
    "transfer.alpha": {"low": 0.05, "high": 0.5},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A toy data set with vectors made elsewhere, so that no text model is loaded."""
    folder = tmp_path_factory.mktemp("toy")
    users, vectors = MEDIUM.vectors("users", WIDTH)
    (folder / "vectors.json").write_text(
        json.dumps(dict(zip(users, vectors.tolist(), strict=True)))
    )
    return folder


@pytest.fixture
def write(folder):
    """Write an experiment file on the toy data set; gives its path."""

    def written(name="grid", **fields):
        base = {
            "dataset": MEDIUM.write(folder),
            "embeddings": {"provider": "import", "path": str(folder / "vectors.json")},
            "targets": {"reduction": "pca"},
            "models": {"BPR": {"hyperparameters": {"embedding_size": 8, "train_batch_size": 64}}},
            "training": {"epochs": 2, "patience": 1, "seeds": [1, 2]},
            "evaluation": {"k": [5, 10], "metrics": ["ndcg", "recall"]},
        }
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"experiment": name, "base": base} | fields))
        return path

    return written


@pytest.fixture(scope="module")
def data(tmp_path_factory, prefect_server):  # noqa: ARG001 - flows need it
    """One data folder for all that is run here."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("data")
        patch.setenv("LLMKT_DATA_DIR", str(folder))
        yield folder


def llmkt(*arguments):
    return CliRunner().invoke(app, ["experiment", *map(str, arguments)])


def ran(*arguments, workers=0):
    """Exit code and summary; without workers, which take long to start, trainings run here."""
    with nullcontext() if workers else no_workers():
        done = llmkt(*arguments, "--workers", workers or 1, "--json")
    return done.exit_code, json.loads(done.stdout.splitlines()[-1])


def rows(data, statement):
    with duckdb.connect(str(data / "results.duckdb"), read_only=True) as connection:
        return connection.sql(statement).fetchall()


GRID = {
    "grid": {"transfer.alpha": [0.1, 0.2, 0.3]},
    "exclude": [{"transfer.alpha": 0.2}],
    # More principal components than the vectors have.
    "points": {"too wide": {"models.BPR.hyperparameters.embedding_size": 2 * WIDTH}},
}


def test_a_grid_outlives_a_failing_point_and_is_found_again(data, write):
    path = write(**GRID)
    planned = ran(path, "--dry-run")[1]
    assert (planned["trainings"], planned["different"], planned["cached"]) == (12, 10, 0)
    (power,) = planned["power"]
    assert (power["model"], power["replicates"], power["needed"]) == ("BPR", 2, None)
    assert not (data / "artifacts" / "training").exists()
    assert not (data / "results.duckdb").exists()

    code, first = ran(path, workers=2)
    assert code == 1
    assert {point["point"]: point["state"] for point in first["points"]} == {
        "alpha=0.1": "ok",
        "alpha=0.3": "ok",
        "too wide": "failed",
        "alpha=0.2": "excluded",
    }
    # The baselines of both points are the same two trainings.
    assert (first["ran"], first["cached"], first["failed"]) == (6, 0, 0)
    found = dict(rows(data, "SELECT point, (state, reason, len(run_ids)) FROM points"))
    assert found["alpha=0.1"] == ("ok", None, 4)
    assert found["alpha=0.2"] == ("excluded", "exclude: transfer.alpha=0.2", 0)
    assert found["too wide"][0] == "failed"
    assert "at most 16 principal components, not 32" in found["too wide"][1]
    assert rows(data, "SELECT arm, point, count(*) FROM runs GROUP BY ALL ORDER BY ALL") == [
        ("baseline", None, 2),
        ("transfer", "alpha=0.1", 2),
        ("transfer", "alpha=0.3", 2),
    ]
    compared = rows(data, "SELECT point, verdict, p_adjusted FROM comparison WHERE is_primary")
    assert compared == [(f"alpha={alpha}", "exploratory", None) for alpha in (0.1, 0.3)]
    page = Path(first["report"])
    assert page == data / "reports" / "grid.html"
    shown = page.read_text(encoding="utf-8")
    assert "alpha=0.1" in shown
    assert "alpha=0.3" in shown
    assert "too wide" not in shown  # it has no runs

    code, again = ran(path)
    assert code == 1
    assert (again["ran"], again["cached"]) == (0, 6)
    assert {stage["state"] for stage in again["stages"]} == {"cached"}
    assert again["comparison"] == first["comparison"]
    planned = ran(path, "--dry-run")[1]
    assert (planned["different"], planned["cached"]) == (10, 6)
    assert planned["time"]["guessed"] == 0
    (power,) = planned["power"]
    assert (power["pilot"], power["pilot_splits"]) == ("grid", 1)
    assert power["detectable_percent"] > 0
    assert set(power["needed"]) == {"1", "3", "5"}


@pytest.mark.usefixtures("data")
def test_one_more_value_trains_only_its_own_and_nothing_more_makes_no_flow_run(write, monkeypatch):
    path = write(**{key: value for key, value in GRID.items() if key == "grid"})
    less = {"transfer.alpha": [0.1, 0.3]}
    ran(write("less", grid=less))
    code, summary = ran(path)
    assert code == 0
    assert (summary["ran"], summary["cached"]) == (2, 6)

    monkeypatch.setattr("flows.experiment_grid.experiment", None)  # so that no flow can run
    code, again = ran(path)
    assert code == 0
    assert (again["ran"], again["cached"]) == (0, 8)
    assert again["comparison"] == summary["comparison"]
    assert again["report"] == summary["report"]


@pytest.mark.usefixtures("data")
def test_a_dry_run_counts_a_searched_baseline_of_two_points_once(write):
    search = {"trials": 3, "space": SPACE, "pruning": "none"}
    planned = ran(write(search=search, grid={"transfer.mask": [0.1, 0.4]}), "--dry-run")[1]
    assert (planned["trainings"], planned["trials"]) == (8, 12)
    # The baseline's two seeds and three trials stand once, those of transfer at both points.
    assert planned["different"] == 2 + 4
    assert planned["time"]["trainings"] == planned["different"] + 3 + 6


def test_a_search_gives_every_arm_as_many_trials_and_the_best_all_seeds(data, write):
    path = write("searched", search={"trials": 3, "space": SPACE, "pruning": "none"})
    code, summary = ran(path)
    assert code == 0, summary["points"]
    assert summary["trials"] == 6
    trials = rows(
        data,
        "SELECT arm, count(*), count(*) FILTER (is_best), max(valid_score) = "
        "max(valid_score) FILTER (is_best) FROM trials WHERE state = 'complete' GROUP BY arm",
    )
    assert sorted(trials) == [("baseline", 3, 1, True), ("transfer", 3, 1, True)]
    assert rows(data, "SELECT DISTINCT search_trials FROM runs WHERE experiment = 'searched'") == [
        (3,)
    ]
    assert "not comparable" not in {row["verdict"].split(":")[0] for row in summary["comparison"]}
    # Of each arm's best setting the first seed was a trial.
    assert summary["ran"] == 6 + 2
    planned = ran(path, "--dry-run")[1]
    assert planned["trials_cached"] == 6
    assert ran(path)[1]["ran"] == 0
    # A later search does not make the earlier one unseen; what it repeats counts once.
    tried = "SELECT DISTINCT arm, search_trials FROM runs WHERE experiment = 'searched' AND "
    assert rows(data, tried + "is_current ORDER BY ALL") == [("baseline", 3), ("transfer", 3)]
    other = {"trials": 2, "seed": 7, "space": SPACE, "pruning": "none"}
    ran(write("searched", search=other))
    assert rows(data, tried + "is_current ORDER BY ALL") == [("baseline", 5), ("transfer", 5)]
    kept = "SELECT is_current, count(*) FROM trials WHERE experiment = 'searched' GROUP BY ALL"
    assert dict(rows(data, kept)) == {True: 4, False: 6}
    ran(write("searched", search=other | {"trials": 3}, arms=["baseline"]))
    done = ran(write("searched", search=other))[1]["comparison"]
    assert {row["verdict"] for row in done} == {
        "not comparable: search trials differ (baseline 6; arm 5)"
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("user_id,item_id\nu1,i1\n", "no column rating"),
        ("user_id,item_id,rating,timestamp\nu1,i1,five,1\n", "row 2: rating is not a number"),
    ],
)
def test_a_fault_of_the_data_is_no_trials(data, write, content, said):
    """It is named once, before the start."""
    file = data / "wrong.csv"
    file.write_text(content)
    wrong = {"dataset.path": None, "dataset.interactions": str(file)}
    search = {"trials": 3, "space": SPACE, "pruning": "none"}
    path = write("faulty", search=search, points={"wrong": wrong, "right": {}})
    for done in (llmkt(path, "--dry-run"), llmkt(path)):
        assert done.exit_code == 2
        output = " ".join(done.output.split())
        assert "wrong: " in output
        assert said in output
        assert "trials" not in output


def test_trials_keep_no_weights_and_a_run_that_needs_them_trains_again(data, write):
    def weights():
        return set((data / "artifacts" / "weights").glob("*"))

    space = {name: values for name, values in SPACE.items() if "learning_rate" in name}
    search = {"trials": 3, "space": space, "pruning": "none", "seed": 11}
    own = {"training.seeds": [3, 4]}  # no other test's
    path, before = write("light", search=search, arms=["baseline"], overrides=own), weights()
    code, summary = ran(path)
    assert (code, summary["ran"]) == (0, 4)
    [second_seed] = weights() - before
    assert ran(path)[1]["ran"] == 0, "an experiment needs no weights"
    base = yaml.safe_load(path.read_text())["base"]
    [[key, value]] = rows(
        data,
        "SELECT unnest(json_keys(params)), params ->> json_keys(params)[1] FROM trials "
        "WHERE experiment = 'light' AND is_best",
    )
    base["models"]["BPR"]["hyperparameters"][key.split(".")[-1]] = float(value)
    base["training"] |= {"arms": ["baseline"], "seeds": [3, 4]}
    alone = path.with_name("alone.yaml")
    alone.write_text(yaml.safe_dump({"experiment": "alone"} | base))
    for first_time in (True, False):
        with no_workers():
            done = CliRunner().invoke(app, ["run", str(alone), "--json"])
        assert done.exit_code == 0, done.output
        states = {stage["name"]: stage["state"] for stage in json.loads(done.stdout)["stages"]}
        assert states["training"] == ("partial" if first_time else "cached")
        assert len(weights() - before) == 2
        assert second_seed in weights()


def test_what_a_search_chose_trains_other_splits_without_another_search(data, write):
    ran(write("chosen", search={"trials": 2, "space": SPACE}))
    printed = CliRunner().invoke(app, ["settings", "chosen"])
    assert printed.exit_code == 0, printed.output
    chosen = yaml.safe_load(printed.output)["settings"]
    assert set(chosen["BPR"]) == {"baseline", "transfer"}
    assert set(chosen["BPR"]["baseline"]) == {"models.BPR.hyperparameters.learning_rate"}
    fixed = {"settings": chosen, "grid": {"split.seed": [2026, 101]}}
    path = write("fresh", **fixed)
    assert ran(path, "--dry-run")[1]["cached"] == 4, "those of the search's own split"
    code, summary = ran(path)
    assert code == 0, summary["points"]
    assert (summary["ran"], summary["cached"]) == (4, 4)
    tried = "SELECT arm, list(DISTINCT alpha), max(search_trials) FROM runs WHERE experiment = "
    alpha = chosen["BPR"]["transfer"]["transfer.alpha"]
    assert rows(data, tried + "'fresh' GROUP BY arm ORDER BY arm") == [
        ("baseline", [None], 0),
        ("transfer", [pytest.approx(alpha)], 0),
    ]
    unknown = llmkt(write("fresh", settings={"NeuMF": {"baseline": {}}}), "--yes")
    assert unknown.exit_code == 2
    assert "settings of NeuMF baseline" in unknown.output
    both = llmkt(write("fresh", settings=chosen, search={"trials": 2, "space": SPACE}), "--yes")
    assert "settings of BPR baseline hold it fixed" in both.output


def test_points_that_differ_in_the_splits_seed_are_replicates(data, write):
    grid = {"split.seed": [1, 2, 3], "transfer.alpha": [0.1, 0.3]}
    one_seed = {"training.seeds": [1]}
    code, summary = ran(
        write("splits", overrides=one_seed, grid={"split.seed": grid["split.seed"]})
    )
    assert code == 0, summary["points"]
    primary = [row for row in summary["comparison"] if row["is_primary"]]
    (row,) = primary
    assert (row["splits"], row["seeds"], row["point"], row["claim"]) == (3, 1, None, "A")
    assert row["p_value"] is not None
    assert rows(data, "SELECT DISTINCT pool FROM points WHERE experiment = 'splits'") == [(None,)]
    assert "3 splits" in Path(summary["report"]).read_text(encoding="utf-8")

    claims = {"evaluation.claims": {"points": ["alpha=0.3"]}}
    both = ran(write("splits", overrides=one_seed | claims, grid=grid))[1]["comparison"]
    found = {row["point"]: (row["splits"], row["claim"]) for row in both if row["is_primary"]}
    assert found == {"alpha=0.1": (3, None), "alpha=0.3": (3, "A")}


class Plain(StageRunner):
    """Stages without Prefect."""

    def _run(self, stage, inputs, side):  # noqa: ARG002
        return stage.recall(*inputs)


class PlainPool:
    """Trains at once, in this process; stops, as if killed, after so many trainings."""

    def __init__(self, limit=99):
        self.results, self.limit = {}, limit

    def start(self, request):
        if request.key in self.results:
            return
        if len(self.results) == self.limit:
            raise KeyboardInterrupt
        self.results[request.key] = training.fn(request.job, **request.inputs)

    def result(self, request):
        return self.results[request.key]


@pytest.fixture
def searching(data_dir, write, no_run_logger, request):  # noqa: ARG001
    """Searches of both arms, ready to run, and how to make them anew."""
    search = {"trials": 4, "space": SPACE, "pruning": "none", **getattr(request, "param", {})}
    loaded = load_experiment(write("plain", search=search))
    stages = Plain()
    (chosen,) = loaded.points

    def made():
        return searches_of(loaded, stages), stages

    return chosen, made


def test_the_number_of_trials_is_enough_for_a_search(data_dir, write):  # noqa: ARG001
    """The models' own spaces, without what the grid sets."""
    fields = {"search": {"trials": 4}, "grid": {"transfer.alpha": [0.1, 0.3]}}
    searches = searches_of(load_experiment(write("shipped", **fields)), Plain())
    spaces = {(one.chosen.name, one.arm): set(one.space) for one in searches}
    assert len(spaces) == 4
    own = "models.BPR.hyperparameters."
    assert all(f"{own}learning_rate" in space for space in spaces.values())
    for (_, arm), space in spaces.items():
        assert {key for key in space if not key.startswith(own)} == (
            set() if arm == "baseline" else {"models.BPR.transfer.scale"}
        )


def test_a_search_leaves_an_arms_settings_alone(data_dir, write):  # noqa: ARG001
    fixed = {"models.BPR.hyperparameters.weight_decay": 0.5, "transfer.scale": 0.25}
    fields = {"search": {"trials": 2, "pruning": "none"}, "settings": {"BPR": {"transfer": fixed}}}
    searches = searches_of(load_experiment(write("partly", **fields)), Plain())
    baseline, transfer = sorted(searches, key=lambda one: one.arm)
    assert "models.BPR.hyperparameters.weight_decay" in baseline.space
    free = set(baseline.space) - {"models.BPR.hyperparameters.weight_decay"}
    assert set(transfer.space) == free | {"models.BPR.transfer.alpha"}
    steps = transfer.steps(Plain())
    job = next(steps).job
    assert job.hyperparameters["weight_decay"] == 0.5
    assert job.transfer.scale == 0.25
    steps.send(BadInput("no training"))
    (trial,) = transfer.trials
    assert fixed.items() <= json.loads(trial.params).items()


@pytest.mark.parametrize(
    ("given", "source", "width"),
    [
        (["profiles"], "import", WIDTH),
        (["profiles", "genres"], "import + genres", WIDTH + 2),
        ({"genres": 1, "years": 0.5}, "genres + years", 2 + 6),
    ],
)
def test_sources_are_combined_before_targets(data_dir, write, no_run_logger, given, source, width):  # noqa: ARG001
    (point,) = load_experiment(write("sources", overrides={"targets.sources": given})).points
    prepared = prepare(point.pipeline, Plain())
    (users,) = prepared.part.described
    assert (users.source, users.embedded.width) == (source, width)
    targets = [request.inputs["targets"] for request in prepared.requests]
    assert [set(one) for one in targets] == [set(), set(), {"users"}, {"users"}]


def test_an_offline_text_beside_imported_vectors_needs_a_text_model(data_dir, write, no_run_logger):  # noqa: ARG001
    (point,) = load_experiment(write("s", overrides={"targets.sources": ["offline"]})).points
    with pytest.raises(BadInput, match=r"offline needs a text model.* Leave out offline"):
        prepare(point.pipeline, Plain())
    settings = {"targets.sources": ["profiles", "offline"], "embeddings.provider": "hashing"}
    settings |= {"embeddings.path": None}
    (point,) = load_experiment(write("s", overrides=settings)).points
    with pytest.raises(BadInput, match=r"written offline already.* profiles\.provider"):
        prepare(point.pipeline, Plain())
    settings["targets.sources"] = ["offline", "years"]
    (point,) = load_experiment(write("s", overrides=settings)).points
    (users,) = prepare(point.pipeline, Plain()).part.described
    assert (users.source, users.provenance) == ("offline + years", "train-only")


def test_a_search_never_reads_the_test_part(searching):
    chosen, made = searching
    searches, stages = made()
    data = load_data(chosen.pipeline, stages, ())
    parts = split_data(chosen.pipeline, data, stages)
    parts.test.file.unlink()
    run_searches(searches, stages, PlainPool())
    assert not parts.test.file.exists()
    assert [[trial.state for trial in search.trials] for search in searches] == [
        ["complete"] * 4
    ] * 2


def test_a_killed_search_goes_on_with_the_same_trials(searching, monkeypatch):
    _, made = searching
    searches, stages = made()
    whole = PlainPool()
    run_searches(searches, stages, whole)
    expected = [search.marked_trials() for search in searches]

    killed = PlainPool(limit=3)
    with pytest.raises(KeyboardInterrupt):
        run_searches(made()[0], stages, killed)
    known = dict(killed.results)
    monkeypatch.setattr("flows.steps.preparation.Request.cached", lambda self: known.get(self.key))
    half = made()[0]
    stopped = recall_searches(half, stages)
    assert [len(search.trials) for search in half] == [3, 0]
    assert [request.job.arm for request in stopped] == ["baseline", "transfer"]

    resumed = made()[0]
    killed.limit = 99
    run_searches(resumed, stages, killed)
    assert [search.marked_trials() for search in resumed] == expected
    assert whole.results.keys() == killed.results.keys()


def test_what_is_computed_is_not_trained_short_before(data_dir, write, no_run_logger):  # noqa: ARG001
    space = {"models.EASE.hyperparameters.reg_weight": {"low": 1.0, "high": 100.0, "log": True}}
    search = {"trials": 4, "space": space, "pruning": "median", "pruning_epochs": 1}
    loaded = load_experiment(
        write("ease", search=search, arms=["baseline"]), ["base.models={EASE: {}}"]
    )
    [one] = searches_of(loaded, Plain())
    made = PlainPool()
    run_searches([one], Plain(), made)
    assert [trial.state for trial in one.trials] == ["complete"] * 4
    assert len(made.results) == 4


@pytest.mark.parametrize("searching", [{"pruning": "median", "pruning_epochs": 1}], indirect=True)
def test_pruning_tries_as_many_settings_in_every_arm(searching):
    _, made = searching
    searches, stages = made()
    pool = PlainPool()
    run_searches(searches, stages, pool)
    states = [[trial.state for trial in search.marked_trials()] for search in searches]
    assert [len(of_arm) for of_arm in states] == [4, 4]
    pruned = sum(of_arm.count("pruned") for of_arm in states)
    assert 0 < pruned < 8
    epochs = [len(trained.epochs) for trained in pool.results.values()]
    assert (epochs.count(1), epochs.count(2)) == (8, 8 - pruned)
    assert all(search.best().state == "complete" for search in searches)


def test_a_setting_that_fails_costs_its_trial_alone(searching, monkeypatch):
    _, made = searching
    searches, stages = made()
    prepared = []

    def fails_once(pipeline, stages, **kept):
        prepared.append(pipeline)
        if len(prepared) == 2:
            raise RuntimeError("the disk is on fire")
        return prepare(pipeline, stages, **kept)

    monkeypatch.setattr(hyperparameter_search, "prepare", fails_once)
    run_searches(searches, stages, PlainPool())
    baseline, transfer = ([trial.state for trial in search.trials] for search in searches)
    assert baseline == ["complete", "failed", "complete", "complete"]
    assert transfer == ["complete"] * 4
    assert searches[0].problem == "the disk is on fire"


@pytest.mark.usefixtures("data_dir")
def test_what_is_left_to_pay_is_said_before(write):
    asking = {"profiles.provider": "openai", "embeddings": {}}
    grid = {"transfer.alpha": [0.1, 0.2]}
    one = ran(write("paid", overrides=asking, grid=grid), "--dry-run")[1]["money"]
    grid["profiles.history.limit"] = [3, 40]
    two = ran(write("paid", overrides=asking, grid=grid), "--dry-run")[1]["money"]
    # 60 users, whatever the weight of their profiles; other histories make other questions.
    assert (one["questions"], two["questions"]) == (60, 120)
    assert 0 < one["usd"] < two["usd"]
    arms = ran(write("free", overrides=asking, arms=["baseline"]), "--dry-run")[1]["money"]
    assert arms == {"questions": 0, "usd": 0.0}
    alone = {"item_profiles.provider": "openai", "item_profiles.history.limit": 0, "embeddings": {}}
    alone["profiles.provider"] = "items"
    [first, both] = (
        ran(write("items", overrides=alone, grid={"split.seed": seeds}), "--dry-run")[1]["money"]
        for seeds in ([1], [1, 2])
    )
    assert first["questions"] > 0
    assert both == first, "a text that saw no interaction is the same on every split"


@pytest.mark.parametrize(
    ("fields", "arguments", "message"),
    [
        ({"max_points": 2, **GRID}, [], "has 4 points"),
        ({"grid": {"transfer.alfa": [1]}}, [], "point alfa=1: transfer.alfa is not a known key"),
        (GRID, ["--set", "transfer.alpha=0.3"], "is an axis of the grid"),
        (GRID, ["--set", "max_points=1"], "more than max_points, 1"),
        ({"griid": {}}, [], "griid is not a known key, did you mean grid?"),
        (
            {"overrides": {"evaluation.claims": {"references": ["EASE"]}}},
            [],
            "evaluation.claims.references: nothing runs as EASE. Set some of BPR",
        ),
        (
            {"overrides": {"evaluation.claims": {"controls": ["noise"]}}},
            [],
            "evaluation.claims.controls: nothing runs as noise. Set some of baseline, transfer",
        ),
        ({"base": "absent.yaml"}, [], "base: there is no file"),
        (
            {"points": {"p": {"models.BPR.hyperparameters.rate": 1}}},
            [],
            "point p: models.BPR.hyperparameters.rate is not a hyper-parameter",
        ),
        (
            {"search": {"space": {**SPACE, "transfer.alfa": {"low": 0, "high": 1}}}},
            [],
            "point base, BPR transfer: transfer.alfa is not a known key",
        ),
    ],
)
def test_a_wrong_file_is_refused_before_anything_runs(data_dir, write, fields, arguments, message):
    done = llmkt(write("wrong", **fields), *arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert not (data_dir / "artifacts" / "training").exists()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_experiments_are_valid(path):
    loaded = load_experiment(path)
    assert loaded.name == path.stem


def test_overrides_reach_every_point_or_the_file(write):
    path = write(**GRID)
    loaded = load_experiment(path, ["training.epochs=7", "grid.transfer.alpha=[0.2, 0.4]"])
    assert [point.name for point in loaded.points] == ["alpha=0.4", "too wide"]
    assert {point.pipeline.training.epochs for point in loaded.points} == {7}


def test_replicates_are_named_by_all_but_the_splits_seed(write):
    grid = {"split.seed": [1, 2], "split.train_limit": [3, 5]}
    assert load_experiment(write("thin", grid=grid)).pools == {
        f"seed={seed} train_limit={limit}": f"train_limit={limit}"
        for seed in (1, 2)
        for limit in (3, 5)
    }


@pytest.mark.parametrize(
    ("points", "grid"),
    [
        (
            {
                "a": {"preset": "corrected"},
                "b": {"preset": "corrected", "transfer.schedule": "two-phase"},
            },
            {},
        ),
        ({"a": {"transfer.alpha": "auto"}, "b": {}}, {}),
        ({"b": {}}, {"transfer.alpha": ["auto"]}),
    ],
)
def test_points_that_mean_the_same_are_refused(write, points, grid):
    first = "alpha=auto" if grid else "a"
    with pytest.raises(BadInput, match=f"points {first} and b come to the same pipeline"):
        load_experiment(write(points=points, grid=grid))
