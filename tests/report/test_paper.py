"""`llmkt paper`: LaTeX that says what the database says, and figures that are vectors."""

import re
import shutil
import subprocess

import pytest
from prefect.logging import disable_run_logger
from typer.testing import CliRunner

from flows.cli.main import app
from tasks.report.paper import _tex
from tasks.results.database import database
from tests.support import toy_runs

PDFLATEX = shutil.which("pdflatex")


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """The paper of BPR with a control beside EASE; one claim is made to hold."""
    folder = tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as patch, disable_run_logger():
        patch.setenv("LLMKT_DATA_DIR", str(folder / "data"))
        toy_runs.evaluate()
        with database() as connection:
            connection.execute("UPDATE contrasts SET verdict = 'better' WHERE claim = 'A'")
            connection.execute("UPDATE runs SET epochs_budget = NULL WHERE model = 'EASE'")
            connection.execute(
                "UPDATE metrics SET value = value - 0.1 FROM runs WHERE metrics.run_id = "
                "runs.run_id AND model = 'BPR' AND arm = 'transfer'"
            )
        out = folder / "paper"
        done = CliRunner().invoke(app, ["paper", "tiny", "-o", str(out)])
        assert done.exit_code == 0, done.output
        assert done.stdout.split() == [str(file) for file in sorted(out.iterdir())]
        refused = CliRunner().invoke(app, ["paper", "huge"])
        assert refused.exit_code == 2
        assert "no experiment 'huge'" in " ".join(refused.stderr.split())
        yield out


def test_the_best_is_bold_the_second_underlined_and_claims_are_marked(paper):
    text = (paper / "results.tex").read_text()
    assert r"EASE$^\dagger$ & baseline & \textbf{1.0000} & \textbf{0.8750} \\" in text
    assert r"BPR & transfer & \underline{0.9000}$^{\mathrm{A}}$ & \underline{0.7750} \\" in text
    assert r"BPR & baseline & 0.6250 & 0.6250 \\" in text
    assert r"\toprule" in text
    assert r"BPR & transfer & baseline & A & +60.0 \% & [$-$4.3898, +5.1398] & better \\" in text


def test_the_methods_say_split_seeds_trials_tests_and_power(paper):
    text = " ".join((paper / "methods.tex").read_text().split())
    for said in (
        "``random'' with the ratios 0.7:0.1:0.2; there is one split, with 2 seeds",
        "Settings were fixed before; none was searched.",
        "EASE was trained elsewhere",
        "Models rank all 9 items",
        "user, 2 of them",
        "1 chain of an arm with knowledge",
        r"\% is found with 80\,\% power (variances of tiny)",
    ):
        assert said in text
    keys = {key for found in re.findall(r"\\cite\{(.*?)\}", text) for key in found.split(",")}
    assert keys == set(re.findall(r"@\w+\{(\w+),", (paper / "references.bib").read_text()))


def test_figures_are_vectors_and_all_are_included(paper):
    files = {file.stem for file in paper.glob("*.pdf")}
    assert {"gains-with-95-intervals", "validation-score-of-bpr-by-epoch"} < files
    included = re.findall(r"\\includegraphics\[.*?\]\{(.*?)\}", (paper / "results.tex").read_text())
    assert set(included) == files
    for file in paper.glob("*.pdf"):
        content = file.read_bytes()
        assert content.startswith(b"%PDF")
        assert b"/Subtype /Image" not in content


def test_what_latex_would_take_for_a_command_is_text():
    assert _tex(r"50 % of a_b & {x}\y − ±") == (
        r"50 \% of a\_b \& \{x\}\textbackslash{}y $-$ $\pm$"
    )


@pytest.mark.skipif(PDFLATEX is None, reason="needs pdflatex: apt-get install texlive-latex-extra")
def test_pdflatex_takes_it(paper):
    command = [str(PDFLATEX), "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=paper, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
