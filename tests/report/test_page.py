import base64
import csv
import gzip
import io
import json
import re
from importlib.metadata import version

import pytest
import yaml
from prefect import flow
from prefect.artifacts import Artifact
from rich.console import Console

from models.config import Pipeline
from models.errors import BadInput
from models.report import wording
from models.report.charts.learning_curves import Course, learning_curves
from models.report.verdict import sentence
from tasks.evaluation.evaluation_task import evaluation
from tasks.execution.stage import StageRecord
from tasks.report.report_task import find_report, report
from tasks.results import database
from tasks.results.queries import comparison_rows
from tasks.results.tables import comparison_table, comparison_text
from tests.support import toy_runs
from tests.support.html_page import Page
from tests.support.toy_runs import evaluated_run, part_of

pytestmark = pytest.mark.usefixtures("data_dir")


def made(config=None, source="offline", arms=("baseline", "transfer"), **changes):
    config = config or toy_runs.pipeline()
    described = toy_runs.described(source, **changes)
    trained = [run for run in toy_runs.all_trained(config) if run.job.arm in arms]
    evaluated = evaluated_run(config, toy_runs.splits(), trained, described, toy_runs.catalogue())
    reported = report.fn(config, evaluated, trained, described)
    return reported, Page(reported.page.file.read_text())


@pytest.mark.usefixtures("no_run_logger")
class TestPage:
    def test_is_one_file_that_needs_no_network(self):
        reported, page = made()
        html = reported.page.file.read_text()
        links = [value for name, value in page.attributes if name in ("src", "href", "srcset")]
        assert all(link.startswith("#") for link in links)
        style = html[html.index("<style>") : html.index("</style>")]
        assert "url(" not in style
        assert "@import" not in style
        assert "default-src 'none'" in html
        packed = next(script for script in page.scripts if len(script) > 1_000_000)
        assert b"Plotly" in gzip.decompress(base64.b64decode(packed))
        assert len(html) < 3_000_000

    def test_shows_the_comparison(self):
        _, page = made()
        # The numbers of test_evaluation.test_comparison_by_hand.
        assert "0.6250 ± 0.1768" in page.text
        assert "1.0000 ± 0.0000" in page.text
        assert "+60.0 %" in page.text
        assert "[−4.3898, +5.1398]" in page.text
        assert (
            "On Recall@2 of one split, transfer is without a detectable difference for BPR."
            in page.text
        )
        assert "Profiles: offline (statistics of the history), not an LLM." in page.text
        assert "2 users scored · 2 seeds" in page.text

    def test_charts_hold_the_values(self):
        _, page = made()
        figures = [json.loads(script) for script in page.scripts if script.startswith("{")]
        assert len(figures) == 3  # validation score and both losses of BPR
        losses = [trace for trace in figures[1]["data"] if trace["meta"]["arm"] == "baseline"]
        assert [trace["y"] for trace in losses] == [[0.7, 0.35, pytest.approx(0.7 / 3), 0.175]] * 2

    def test_records_provenance_and_configuration(self):
        config = toy_runs.pipeline(profiles={"llm": {"model": "<b>adam</b>"}})
        reported, page = made(config)
        for expected in (
            "train-only",
            "0123456789abcdef",
            "all-MiniLM-L6-v2",
            config.digest(),
            f"recbole {version('recbole')} ",
            "4 of 4",
        ):
            assert expected in page.text
        html = reported.page.file.read_text()
        assert "<b>adam" not in html
        settings = re.search(r'<pre class="pipeline">(.*?)</pre>', html, re.DOTALL)[1]
        settings = settings.replace("&lt;", "<").replace("&gt;", ">").replace("&#39;", "'")
        assert Pipeline.model_validate(yaml.safe_load(settings)) == config

    def test_warns_of_what_is_no_evidence(self):
        _, page = made(source="openai", provenance="leaky")
        assert "Profiles: written by an LLM." in page.text
        assert "this comparison is no evidence" in page.text
        assert "not an LLM" not in page.text
        assert ("class", "note warning") in page.attributes

    def test_one_seed_says_so(self):
        config = toy_runs.pipeline(training={"epochs": 4, "valid_metric": "recall@2", "seeds": [1]})
        _, page = made(config)
        assert "One seed decides nothing: the intervals cover the choice of users" in page.text
        assert "transfer 1.0000 +33.3 %" in page.text
        assert "baseline 0.7500 –" in page.text

    def test_without_a_baseline(self):
        _, page = made(arms=["transfer"])
        assert "There is nothing to compare" in page.text
        assert "Learning curves" in page.text

    def test_without_transfer(self):
        config = toy_runs.pipeline(training={"valid_metric": "recall@2", "arms": ["baseline"]})
        trained = toy_runs.all_trained(config)
        evaluated = evaluated_run(config, toy_runs.splits(), trained, [], toy_runs.catalogue())
        reported = report.fn(config, evaluated, trained, [])
        assert "Transfer loss" not in Page(reported.page.file.read_text()).text

    def test_copies_are_equal_and_repeatable(self):
        first, _ = made()
        second, _ = made()
        assert first == second
        assert first.report.file.read_bytes() == first.page.file.read_bytes()
        assert first.page.path == "reports/tiny.html"
        first.page.verify()
        assert not list(first.page.file.parent.glob(".writing-*"))


@pytest.mark.usefixtures("no_run_logger")
class TestText:
    def test_table(self):
        made()
        console = Console(width=160, record=True, file=io.StringIO())
        console.print(comparison_table(comparison_rows("tiny")))
        lines = console.export_text().splitlines()
        assert lines[0].strip() == "tiny"
        assert re.sub(" +", " ", lines[2]).strip() == (
            "BPR transfer Recall@2 0.6250 ± 0.1768 1.0000 ± 0.0000 +60.0 % [−4.3898, +5.1398] "
            "+0.67 0.500 no detectable difference"
        )
        assert "not an LLM" in lines[-1]

    def test_table_of_several_experiments_names_them(self):
        made()
        made(toy_runs.pipeline(experiment="other"))
        console = Console(width=160, record=True, file=io.StringIO())
        console.print(comparison_table(comparison_rows()))
        text = console.export_text()
        assert re.search(r"^tiny +BPR", text, re.MULTILINE)
        assert re.search(r"^other +BPR", text, re.MULTILINE)

    def test_json_and_csv_keep_full_precision(self):
        made()
        rows = comparison_rows("tiny")
        assert json.loads(comparison_text(rows, "json")) == rows
        read = list(csv.DictReader(io.StringIO(comparison_text(rows, "csv"))))
        assert [float(row["ci_low"]) for row in read] == [row["ci_low"] for row in rows]

    def test_markdown(self):
        made()
        lines = comparison_text(comparison_rows("tiny"), "md").splitlines()
        assert lines[2].startswith("| tiny | BPR | transfer | Recall@2 | 0.6250 ± 0.1768 |")
        assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
        assert lines[-1] == "Profiles: offline (statistics of the history), not an LLM."

    def test_reports_are_found(self):
        with pytest.raises(BadInput, match="holds no report"):
            find_report()
        first, _ = made()
        second, _ = made(toy_runs.pipeline(experiment="other"))
        assert find_report() == second.page.file
        assert find_report("tiny") == first.page.file
        with pytest.raises(
            BadInput, match=r"no report of experiment 'tni'\. Choose one of other, tiny"
        ):
            find_report("tni")


def row(model, verdict, arm="transfer", gain=None):
    return {
        "model": model,
        "arm": arm,
        "verdict": verdict,
        "gain_percent": gain,
        "metric": "ndcg",
        "k": 10,
        "is_primary": True,
        "splits": 2,
    }


def test_sentence():
    rows = [
        row("A", "better", gain=3.14),
        row("B", "worse"),
        row("C", "better"),
        row("D", "better"),
        row("A", "not comparable: seeds differ", arm="noise"),
    ]
    assert sentence(rows) == (
        "On NDCG@10, transfer is better than its own baseline for A (+3.1 %), C and D, worse than "
        "its own baseline for B. On NDCG@10, noise is not comparable for A."
    )


def test_numbers():
    assert wording.percent(-0.04) == "+0.0 %"
    assert wording.percent(-2.55) == "−2.5 %"
    assert wording.percent(None) == "–"
    assert wording.p_value(0.0004) == "< 0.001"
    assert wording.interval(-0.1, 0.25) == "[−0.1000, +0.2500]"


def test_curves_mark_phases_and_the_best_epoch():
    config = toy_runs.pipeline()
    courses = [Course(run.job, run.epochs, run.best_epoch) for run in toy_runs.all_trained(config)]
    score, model_loss, transfer_loss = learning_curves(courses)["BPR"].values()
    assert [(s["x0"], s["x1"]) for s in model_loss["layout"]["shapes"]] == [(-0.5, 1.5)]
    dots = [trace for trace in score["data"] if trace["mode"] == "markers"]
    assert [(dot["x"], dot["y"]) for dot in dots] == [([2], [0.3])] * 4
    assert len(transfer_loss["data"]) == 4
    assert [len(line["x"]) for line in transfer_loss["data"]] == [0, 0, 2, 2]


@pytest.mark.usefixtures("prefect_server")
def test_under_prefect_results_are_reused_and_heal():
    ran = []  # Other times in every run, which the key must not depend on.

    @flow
    def compared():
        config = toy_runs.pipeline()
        trained, described = toy_runs.all_trained(config), toy_runs.described()
        part = part_of(config, toy_runs.splits(), trained, described, toy_runs.catalogue())
        first = evaluation("tiny", [part], return_state=True)
        ran.append(StageRecord(name="split", state="ran", seconds=float(len(ran))))
        second = report(config, first.result(), trained, described, list(ran), return_state=True)
        return [first.name, second.name], second.result()

    states, reported = compared()
    assert states == ["Completed", "Completed"]
    table = Artifact.get("comparison-tiny")
    assert json.loads(table.data)[0]["gain"] == "+60.0 %"
    assert reported.page.file.as_uri() in Artifact.get("report-tiny").data

    assert compared() == (["Cached", "Cached"], reported)
    reported.page.file.unlink()
    states, healed = compared()
    assert states == ["Cached", "Completed"]
    assert healed.comparison == reported.comparison
    reported = healed
    with database.database() as connection:
        connection.execute("DELETE FROM contrasts")
    assert compared() == (["Completed", "Cached"], reported)
    assert len(comparison_rows("tiny")) == 4
