import numpy as np
from jinja2 import Environment, FileSystemLoader

from models.report import wording
from models.report.charts import forest_plot, parameter_sweeps
from tasks.storage.artifacts import PROJECT_ROOT

TEMPLATES = PROJECT_ROOT / "tasks" / "report" / "templates"


def contrast(gain, low, high, base=0.5):
    return {"baseline_mean": base, "gain_percent": gain, "ci_low": low, "ci_high": high}


def test_a_gain_is_relative_to_the_baseline():
    assert forest_plot.gain(contrast(10.0, 0.025, 0.075)) == forest_plot.Gain(10.0, 5.0, 15.0)
    assert forest_plot.gain(contrast(None, None, None)) is None


def test_an_axis_holds_zero_and_every_gain():
    axis = forest_plot.axis([contrast(10.0, 0.025, 0.075), contrast(20.0, 0.075, 0.125)])
    assert axis == forest_plot.Axis(0.0, 25.0)
    # 3 % are kept free on both sides, so 94 % are 25 points.
    assert [axis.position(value) for value in (0, 5, 10, 15)] == [3.0, 21.8, 40.6, 59.4]


def test_one_wide_interval_is_cut_off():
    narrow = [contrast(1.0, 0.0, 0.01)] * 4
    axis = forest_plot.axis([*narrow, contrast(2.0, -2.0, 2.0)])
    # Four intervals are 2 points wide, so gains of 0 to 2 get 5 points on either side.
    assert axis == forest_plot.Axis(-5.0, 7.0)
    assert (axis.position(-400.0), axis.position(400.0)) == (3.0, 97.0)


def test_a_cut_end_is_marked_with_an_arrow():
    def whisker(low, high):
        row = {**contrast(2.0, low / 200, high / 200), "model": "BPR", "arm": "kar", "verdict": ""}
        cell = macros.forest(row, forest_plot.Axis(-5.0, 7.0), forest_plot.gain, wording)
        return cell.count("<path")

    macros = Environment(loader=FileSystemLoader(TEMPLATES)).get_template("macros.html.j2").module
    assert [whisker(*ends) for ends in ((-4, 6), (-6, 6), (-4, 8), (-6, 8))] == [0, 1, 1, 2]


def test_nothing_comparable_has_no_axis():
    assert forest_plot.axis([contrast(None, None, None)]) is None


def point(token, genre, text=None):
    return {"id": token, "x": 0.0, "y": 0.0, "genre": genre, "text": text}


def run(arm, seed, value, alpha=None, layer=None, model="BPR"):
    config = {"split": {"seed": 2026, "train_limit": None}}
    known = {"model": model, "arm": arm, "seed": seed, "value": value, "alpha": alpha}
    known |= {"config": config}
    if arm == "baseline":
        return known | {"layer": None, "alignment": None, "reduction": None}
    return known | {"layer": layer or "user", "alignment": "rmse", "reduction": "umap"}


def test_a_sweep_averages_seeds_and_nothing_else():
    rows = [
        run("baseline", 1, 0.2),
        run("baseline", 2, 0.4),
        run("transfer", 1, 0.5, alpha=0.9),
        run("transfer", 1, 0.3, alpha=0.1),
        run("transfer", 2, 0.5, alpha=0.1),
        run("transfer", 1, 0.7, alpha=0.1, layer="mlp"),
        run("transfer", 1, 0.8, alpha=0.9, layer="mlp"),
        run("shuffled", 1, 0.1, alpha=0.1),
    ]
    alpha, layer = parameter_sweeps.sweeps(rows, "NDCG@10")
    assert (alpha.model, alpha.factor, layer.factor) == ("BPR", "α", "Layer")
    lines = {line["name"]: (line["x"], line["y"]) for line in alpha.figure["data"]}
    assert lines == {
        "transfer, Layer user, Alignment rmse, Reduction umap": ([0.1, 0.9], [0.4, 0.5]),
        "transfer, Layer mlp, Alignment rmse, Reduction umap": ([0.1, 0.9], [0.7, 0.8]),
    }
    assert alpha.figure["data"][0]["error_y"]["array"][1] == 0
    assert abs(alpha.figure["data"][0]["error_y"]["array"][0] - 0.02**0.5) < 1e-12
    (level,) = alpha.figure["layout"]["shapes"]
    assert abs(level["y0"] - 0.3) < 1e-12
    assert [line["x"] for line in layer.figure["data"]] == [["mlp", "user"], ["mlp", "user"]]


def test_nothing_that_varies_gives_no_sweep():
    rows = [run("baseline", 1, 0.2), run("transfer", 1, 0.5, 0.1), run("shuffled", 1, 0.5, 0.1)]
    assert parameter_sweeps.sweeps(rows, "NDCG@10") == []


def test_gains_are_drawn_against_the_baseline_of_equal_split_length_and_seed():
    def cut(arm, seed, value, split, limit, sources=("profiles",)):
        config = {
            "split": {"seed": split, "train_limit": limit},
            "targets": {"sources": list(sources)},
        }
        return run(arm, seed, value) | {"config": config, "alpha": 0.1}

    rows = [
        cut("transfer", 1, 0.5, 101, None),
        cut("baseline", 1, 0.4, 101, None),
        cut("baseline", 1, 0.2, 101, 20),
        cut("transfer", 1, 0.3, 101, 20),
        cut("baseline", 1, 0.1, 102, 20),
        cut("transfer", 1, 0.4, 102, 20),
        cut("transfer", 1, 0.25, 101, 20, ("offline",)),
        cut("baseline", 1, 0.1, 101, 3),
        cut("transfer", 1, 0.1, 101, 3),
        cut("shuffled", 1, 0.9, 103, 3),  # without a baseline on its split
    ]
    (chart,) = parameter_sweeps.sweeps(rows, "NDCG@10")
    assert chart.factor == "Training interactions of a user"
    lines = {line["name"]: (line["x"], line["y"]) for line in chart.figure["data"]}
    assert lines["transfer, profiles"][0] == ["3", "20", "all"]
    np.testing.assert_allclose(lines["transfer, profiles"][1], [0.0, 0.2, 0.1])
    np.testing.assert_allclose(lines["transfer, offline"][1], [0.05])
    assert set(lines) == {"transfer, profiles", "transfer, offline"}
