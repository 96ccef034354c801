"""What the sections of a report say, of a run with a control and a reference."""

from html import unescape

import pytest
import yaml

from tasks.evaluation.outputs import Evaluated
from tasks.report import leaderboard, run_facts
from tests.support import toy_report, toy_runs
from tests.support.html_page import Page


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    return toy_report.rich(tmp_path_factory.mktemp("data")).read_text()


@pytest.fixture(scope="module")
def text(html):
    return Page(html).text


def test_the_leaderboard_has_every_arm_and_the_reference_best_first(text):
    board = text[text.index("full ranking of the catalogue") : text.index("Gains with intervals")]
    # The two seeds of shuffled are two points, which are not averaged: 3/4 and 1/2.
    rows = (
        "EASE reference 1.0000",
        "BPR transfer 1.0000",
        "BPR shuffled 0.25, user_embedding, rmse, umap 0.7500 – – – –",
        "BPR shuffled 0.5, user_embedding, rmse, umap 0.5000 – – – –",
    )
    assert all(row in board for row in rows)
    assert board.index(rows[1]) < board.index(rows[2])
    assert "Coverage Novelty" in board


def test_gains_stand_against_baseline_control_and_reference(text):
    gains = text[text.index("Gains with intervals") : text.index("Sweeps Recall@2")]
    for heading, row in (
        ("Against its own baseline", "BPR transfer baseline 0.6250"),
        ("Against the controls", "BPR transfer shuffled 0.6250"),
        ("Against the references", "BPR baseline EASE 1.0000"),
    ):
        assert row in gains[gains.index(heading) :]


def test_what_llms_cost_is_summed(text):
    assert "users offline tiny-llm made by this run 2 20 10 0.0020" in text


def test_times_are_those_of_this_run_and_of_the_trainings(text):
    # Two seeds of 1.5 s and 3 s, of which this run did a part.
    assert "training BPR transfer partial 1.5 4.5" in text
    assert "split ran 0.5 –" in text
    assert "Sum 2.0 18.0" in text


def test_every_run_has_its_configuration_and_no_difference_where_there_is_none(html, text):
    assert text.count("model: BPR arm: transfer seed:") == 2
    assert text.count("The rest is the experiment's configuration.") == 8
    assert 'class="diff"' not in html
    shown = html.split('<pre class="pipeline">')[1].split("</pre>")[0]
    assert yaml.safe_load(unescape(shown))["experiment"] == "tiny"


def test_a_difference_is_shown_by_line():
    changed = run_facts.diff("a: 1\nb: 2\nc: 3\nd: 4", "a: 1\nb: 9\nc: 3\nd: 4")
    assert changed.splitlines()[1:] == [" a: 1", "-b: 2", "+b: 9", " c: 3"]
    assert run_facts.diff("a: 1", "a: 1") == ""


def test_what_went_alike_is_one_row_of_stages():
    stages = run_facts.stages([*toy_report.STAGES, toy_report.STAGES[0]], [])
    assert [(row["name"], row["times"], row["seconds"]) for row in stages] == [
        ("split", 2, 1.0),
        ("training", 1, 1.5),
    ]


def test_the_sweep_of_hand_made_rows_is_there(text):
    assert "Sweeps" in text
    assert "BPR: α" in text


def test_points_stand_apart_on_the_leaderboard_with_their_own_contrasts():
    def run(arm, seed, value, point):
        bare = dict.fromkeys(("alpha", "layer", "alignment", "reduction", "coverage", "novelty"))
        return bare | {"model": "BPR", "arm": arm, "seed": seed, "value": value, "point": point}

    def contrast(point):
        known = {"model": "BPR", "arm": "transfer", "against": "baseline", "is_primary": True}
        return known | {"point": point}

    runs = [
        run("baseline", 1, 0.2, None),
        run("transfer", 1, 0.3, "a"),
        run("transfer", 2, 0.5, "a"),
        run("transfer", 1, 0.1, "b"),
    ]
    found = leaderboard.StoredEvaluation(runs, [contrast("a"), contrast("b")], [])
    board = leaderboard.leaderboard(found, [])
    assert [(row["arm"], row["point"], row["mean"]) for row in board] == [
        ("transfer", "a", 0.4),
        ("baseline", "", 0.2),
        ("transfer", "b", 0.1),
    ]
    assert [row["contrast"] and row["contrast"]["point"] for row in board] == ["a", None, "b"]


@pytest.mark.usefixtures("data_dir")
def test_points_of_an_experiment_that_differ_in_their_profiles_are_all_shown():
    config = toy_runs.pipeline()
    [trained] = [toy_runs.trained(config, "BPR", "baseline", 1)]
    evaluated = Evaluated(
        experiment="tiny",
        evaluation_id="e",
        config_hash="c",
        family="f",
        git_sha=None,
        run_ids=(),
        contrasts=(),
        n_contrasts=0,
        n_slices=0,
    )
    described = [toy_runs.described()[0], toy_runs.described(prompt_hash="another")[0]]
    found = run_facts.facts(evaluated, [trained], [*described, described[0]])["facts"]
    assert [heading for heading in found if "of users" in heading] == [
        "Profiles of users",
        "Embeddings of users",
        "Profiles of users (2)",
    ]
    assert found["Profiles of users (2)"]["Prompt hash"] == "another"
