"""Titles, ids, answers and values of others are text, whatever a medium would make of them."""

import csv
import io
import json
import math
import re

import pytest
from rich.table import Table
from typer import Exit

from flows.cli.common import plain_errors, plain_table, terminal
from flows.cli.nightly import _print_recommended
from flows.cli.profiles import _print_shown
from models.errors import BadInput
from models.plain_text import as_json, for_csv, for_markdown, for_terminal
from tasks.inspection.current_profiles import Shown
from tasks.publishing.recommendation_lookup import Found, Recommendation
from tasks.results.tables import query_table, query_text
from tasks.storage.data_dir import PROJECT_ROOT

ESCAPES = [
    "\x1b[2J\x1b]0;owned\x07",
    "\x1b]8;;https://evil.example\x1b\\x",
    "\x9b31m",
    "a\rb\x08\x7f",
]
MARKUP = [
    "[/bold] Title",
    "[rec] 2",
    "[link=https://evil.example]x[/link]",
    "[red]x",
    ":smile: [/]",
]
FORMULAS = [
    '=HYPERLINK("https://evil.example")',
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1+1",
    " =1+1",
    "\n=1",
    "\uff1d1+1",
    "|calc",
]


def screen():
    return terminal(file=io.StringIO(), width=200, force_terminal=True, color_system=None)


def shown(console):
    text = console.file.getvalue()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    return text


@pytest.mark.parametrize("text", MARKUP)
def test_markup_in_titles_and_ids_is_shown(text):
    item = Recommendation(rank=1, item_id=text, title=text, year=1995, score=0.5)
    console = screen()
    found = Found(experiment="e", version="v", user_id="u", source="model", items=[item])
    _print_recommended(console, found)
    assert shown(console).count(text) == 2


@pytest.mark.parametrize("text", [*MARKUP, *ESCAPES, "\u202egnp.exe", "half \ud83d"])
def test_nothing_that_others_wrote_moves_the_terminal(text):
    console = screen()
    table = plain_table(text)
    table.add_row(text)
    console.print(table, text)
    console.print(Table(text, title=text, caption=text))
    console.rule(text)
    console.print(query_table([text], [[text]]))
    profile = Shown.model_construct(
        side="users", id=text, text=text, source=text, llm_model=text, provenance=text,
        history_sha256=None, history_count=1, saw=None, command=text,
    )  # fmt: skip
    _print_shown(console, profile)
    assert shown(console).count(for_terminal(text)) >= 8


@pytest.mark.parametrize("text", [*MARKUP, *ESCAPES])
def test_errors_show_what_they_quote(text, capsys):
    with pytest.raises(Exit) as ended, plain_errors():
        raise BadInput(f"endpoint said {text}")
    assert ended.value.exit_code == 2
    with pytest.raises(Exit), plain_errors():
        raise RuntimeError(text + " https://me:hunter2@host")
    printed = capsys.readouterr().err
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", printed)
    assert "hunter2" not in printed
    if text in MARKUP:
        assert printed.count(text) == 2


@pytest.mark.parametrize("text", FORMULAS)
def test_no_spreadsheet_computes_a_text(text):
    written = query_text([text], [[text], ["safe"], [-0.5], [None]], "csv")
    (name,), (value,), (safe,), (number,), (empty,) = csv.reader(io.StringIO(written))
    for cell in (name, value):
        assert cell.startswith("'")
        assert "\r" not in cell
    assert (safe, number, empty) == ("safe", "-0.5", "")


@pytest.mark.parametrize("value", [-1, 1.5, True, None, "-1.5e3", "+7", "Heat - a film", "a=b"])
def test_numbers_and_names_stay_as_they_are_in_csv(value):
    assert for_csv(value) == value


def test_markdown_keeps_a_text_in_its_cell():
    text = "a | b\r\n| c <script> [x](https://evil.example) `d` \\"
    cell = for_markdown(text)
    assert re.search(r"(?<!\\)\||[\r\n<]|\]\(|(?<!\\)`", cell) is None
    assert len(query_text([text], [[text]], "md").splitlines()) == 3


def test_json_is_json_for_every_reader():
    value = {
        "a": math.nan,
        "b": [math.inf, -math.inf, 1.5],
        3: "\x9b\x1b\ud83d é",
        "d": {1: math.nan},
    }
    text = as_json(value)
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert (found["a"], found["b"], found["d"]) == (None, [None, None, 1.5], {"1": None})
    assert found["3"] == "\x9b\x1b\ud83d é"
    assert text.isprintable()
    rows = query_text(["x"], [[math.nan], ["\x9b"]], "json")
    assert json.loads(rows) == [{"x": None}, {"x": "\x9b"}]
    assert rows.isprintable()


def test_commands_print_in_one_way():
    files = sorted((PROJECT_ROOT / "flows").rglob("*.py"))
    for file in [*files, *sorted((PROJECT_ROOT / "tasks").rglob("*.py"))]:
        if file.name != "common.py":
            assert not re.search(r"(?<!_)\bConsole\((?!\))|markup=True", file.read_text()), file
    for file in files:
        if file.parent.name == "cli":
            assert "json.dumps" not in file.read_text(), file
