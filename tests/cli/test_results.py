"""The commands that ask the results database, free SQL, and databases that cannot be asked."""

import csv
import io
import json
import re
import subprocess
import sys

import duckdb
import pytest
from typer.testing import CliRunner

from flows.cli import common
from flows.cli.main import app
from models.errors import BadInput
from tasks.results import queries
from tasks.results.cross_experiment import compare_experiments
from tasks.results.database import database_path
from tasks.results.queries import comparison_rows, query, slice_rows
from tasks.results.tables import query_table, query_text
from tasks.storage.artifacts import PROJECT_ROOT
from tests.support.toy_runs import evaluate, evaluate_grid

pytestmark = pytest.mark.usefixtures("data_dir", "no_run_logger")


def test_sql_reads_in_every_form():
    evaluate()
    columns, rows = query("SELECT model, k, gain_percent FROM comparison WHERE is_primary")
    assert columns == ["model", "k", "gain_percent"]
    assert rows == [("BPR", 2, pytest.approx(0.0)), ("BPR", 2, pytest.approx(60.0))]
    assert json.loads(query_text(columns, rows, "json"))[1]["gain_percent"] == rows[1][2]
    assert next(csv.reader(io.StringIO(query_text(columns, rows, "csv")))) == columns
    assert query_text(columns, [("a|b", None, 1.5)], "md").splitlines() == [
        "| model | k | gain_percent |",
        "| --- | --- | --- |",
        "| a\\|b |  | 1.5 |",
    ]
    assert query_table(columns, []).row_count == 0
    for statement in ("DESCRIBE runs", "SHOW TABLES", "FROM runs", "EXPLAIN FROM runs"):
        assert query(statement)[1]
    json.loads(query_text(*query("FROM runs"), "json"))  # times, too


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM runs",
        "CREATE TEMP TABLE mine AS FROM runs",
        "COPY runs TO 'runs.csv'",
        "ATTACH 'other.duckdb'",
        "SET threads = 1",
        "FROM runs; FROM runs",
        "",
    ],
)
def test_sql_refuses_whatever_does_more_than_read(statement):
    evaluate()
    before = database_path().read_bytes()
    with pytest.raises(BadInput, match="takes one statement that reads"):
        query(statement)
    assert database_path().read_bytes() == before


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELEC 1", 'refuses the statement: Parser Error: syntax error at or near "SELEC"'),
        ("FROM nosuch", "Table with name nosuch does not exist"),
        ("FROM '/etc/passwd'", "/etc/passwd"),
        ("SELECT nosuch FROM runs", 'column "nosuch" not found'),
        ("FROM read_text('/etc/hostname')", "file system operations are disabled"),
    ],
)
def test_bad_sql_is_one_sentence(statement, message):
    evaluate()
    with pytest.raises(BadInput) as raised:
        query(statement)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_empty_or_foreign_database_is_said(data_dir):
    for read in (comparison_rows, slice_rows, lambda: query("FROM runs")):
        with pytest.raises(BadInput, match=r"does not exist. Run `llmkt run CONFIG` first"):
            read()
    data_dir.mkdir()
    duckdb.connect(str(database_path())).close()
    for read in (comparison_rows, slice_rows, lambda: compare_experiments("first", "second")):
        with pytest.raises(BadInput, match=r"holds no results. Run `llmkt run CONFIG` first"):
            read()
    database_path().write_text("no database")
    for read in (comparison_rows, lambda: query("FROM runs")):
        with pytest.raises(BadInput, match="damaged, or not a results database"):
            read()


HOLD_DATABASE = """
import duckdb, sys
with duckdb.connect(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_locked_database_is_said(monkeypatch):
    evaluate()
    monkeypatch.setattr(queries, "READ_WAIT_SECONDS", 0.1)
    command = [sys.executable, "-c", HOLD_DATABASE, str(database_path())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        for read in (comparison_rows, lambda: query("FROM runs")):
            with pytest.raises(BadInput, match="Close the program that holds it"):
                read()
        holder.stdin.close()


LINES = re.findall(
    r"```python\n# (.*?)\n(.*?)```",
    (PROJECT_ROOT / "data" / "README.md").read_text(encoding="utf-8"),
    re.DOTALL,
)


@pytest.fixture
def documented(data_dir, monkeypatch):
    """What the documented line of that title leaves, run beside a data folder with results."""
    evaluate()
    monkeypatch.chdir(data_dir.parent)
    codes = dict(LINES)

    def run(title):
        names: dict[str, object] = {}
        exec(codes[title], names)
        return names

    return run


def test_every_documented_line_is_tested():
    assert [title.partition(",")[0].partition(":")[0] for title, _ in LINES] == [
        "pandas",
        "Polars",
        "Arrow",
        "a notebook's cell",
        "Parquet",
    ]


def test_the_line_for_pandas_works(documented):
    frame = documented("pandas")["frame"]
    assert frame[frame.is_primary].arm.tolist() == ["shuffled", "transfer"]


def test_the_line_for_polars_works(documented):
    pytest.importorskip("polars", reason="Polars is not installed, nor needed")
    frame = documented("Polars")["frame"]
    assert set(frame["against"]) == {"baseline", "shuffled", "EASE"}


def test_the_line_for_arrow_works(documented):
    table = documented("Arrow, without a copy through Python objects")["table"]
    assert table.column_names == ["run_id", "user_id", "metric", "k", "value"]
    assert (table.num_rows,) == query("SELECT count(*) FROM user_metrics")[1][0]
    assert set(table["user_id"].to_pylist()) == {"u1", "u2"}


def test_the_line_for_a_notebook_shows_something(documented):
    (title,) = (title for title, _ in LINES if title.startswith("a notebook"))
    code = dict(LINES)[title].splitlines()
    documented(title)
    names: dict[str, object] = {}
    exec("\n".join(code[:-1]), names)
    shown = eval(code[-1], names)
    assert "history" in shown._repr_html_()


def test_the_line_for_parquet_works(documented):
    rows = documented("Parquet")["rows"]
    assert set(rows.user_id) == {"u1", "u2", "u3"}


@pytest.fixture
def llmkt(monkeypatch):
    """The command in this process, whose Prefect is left as it is."""
    monkeypatch.setattr(common, "configure_prefect", lambda *_: None)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_the_commands(llmkt):
    evaluate("first")
    evaluate("second")
    rows = json.loads(llmkt("compare", "first", "--against", "EASE", "--format", "json").stdout)
    assert {row["against"] for row in rows} == {"EASE"}
    named = llmkt("compare", "--experiment", "second", "--format", "json").stdout
    assert {row["experiment"] for row in json.loads(named)} == {"second"}
    assert "history, 1 coldest" in llmkt("compare", "--slices", "--format", "md").stdout
    assert "mean of the other" in llmkt("compare", "first", "second").stdout
    counted = llmkt("sql", "SELECT count(*) AS n FROM runs", "--format", "csv")
    assert (counted.exit_code, counted.stdout) == (0, "n\n16\n")
    assert "16" in llmkt("sql", "SELECT count(*) AS n FROM runs").stdout


def test_points_without_a_counterpart_are_said_beside_the_comparison(llmkt):
    alphas = {f"alpha={alpha}": {"transfer": {"alpha": alpha}} for alpha in (0.1, 0.2)}
    evaluate_grid("first", alphas)
    evaluate_grid("second", {"alpha=0.2": alphas["alpha=0.2"]})
    shown = llmkt("compare", "first", "second", "--format", "json")
    assert {row["point"] for row in json.loads(shown.stdout)} == {"alpha=0.2"}
    assert shown.stderr == "Not compared: only first has alpha=0.1.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("compare", "first", "second", "third"),
        ("compare", "first", "second", "--slices"),
        ("compare", "first", "--against", "noise"),
        ("compare", "--slices", "--against", "EASE"),
        ("compare", "first", "absent"),
        ("sql", "DROP TABLE runs"),
        ("sql", "FROM nosuch"),
    ],
)
def test_commands_end_with_one_sentence_and_exit_code_2(llmkt, arguments):
    evaluate("first")
    refused = llmkt(*arguments)
    assert refused.exit_code == 2
    assert refused.stdout == ""
    assert refused.stderr.startswith("Error: ")


def test_a_question_is_answered_without_what_trains():
    """Importing torch, RecBole or Prefect would take seconds."""
    code = (
        "import sys, tasks.results.queries, tasks.results.tables, flows.cli.results; "
        "print(*{'torch', 'recbole', 'prefect'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
