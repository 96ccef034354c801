"""What README and docs tell a reader to do: commands, settings, paths and links."""

import re
import shlex
import tomllib

import pytest
import typer
import yaml

from flows.cli.main import app
from models.errors import BadInput
from tasks.config.experiment_file import load_experiment
from tasks.config.pipeline_file import load
from tasks.storage.artifacts import PROJECT_ROOT

PAGES = sorted(
    [
        *PROJECT_ROOT.glob("*.md"),
        *PROJECT_ROOT.glob("docs/**/*.md"),
        PROJECT_ROOT / "data/README.md",
    ]
)
WRITTEN_BY_HAND = [page for page in PAGES if page.parent.name != "reference"]
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
FOLDERS = "benchmarks|configs|data|docs|flows|models|prompts|tasks|tests"


def commands(page):
    """Every `llmkt` command of a page's code blocks, as words."""
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language:
            continue
        for command in re.findall(
            r"^\s*(?:\.venv/bin/)?llmkt (.*(?:\n(?: +.*))*)", block, re.MULTILINE
        ):
            yield shlex.split(command.replace("\\\n", " "), comments=True)


COMMANDS = sorted({tuple(words) for page in WRITTEN_BY_HAND for words in commands(page)})


def parsed(words):
    """The parameters of a command; raises where it is no command or an option is unknown."""
    command = typer.main.get_command(app)
    context = command.context_class(command, info_name="llmkt")
    rest = list(words)
    while hasattr(command, "commands"):
        name = rest.pop(0)
        command = command.commands[name]
    return command.make_context(name, rest, parent=context).params


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_documented_command_exists_with_its_options(words):
    parsed(words)


def is_shipped(path):
    return path is not None and (PROJECT_ROOT / path).is_file()


@pytest.mark.parametrize("words", [words for words in COMMANDS if "--set" in words], ids=" ".join)
def test_a_documented_setting_is_accepted(words, tmp_path):
    given = parsed(words)
    for path in given.get("configs") or [given["config"]]:
        if words[0] == "experiment":
            load_experiment(PROJECT_ROOT / path, given["overrides"])
        elif is_shipped(path):
            load(PROJECT_ROOT / path, given["overrides"])
        else:  # a reader's own file
            own = tmp_path / "mine.yaml"
            own.write_text(yaml.safe_dump({"experiment": "mine", "models": {"BPR": {}}}))
            load(own, given["overrides"])


def test_a_wrong_documented_command_would_be_found():
    with pytest.raises(KeyError):
        parsed(["runn", "configs/ml-100k.yaml"])
    with pytest.raises(Exception, match="--sett"):
        parsed(["run", "configs/ml-100k.yaml", "--sett", "size=quick"])
    with pytest.raises(BadInput, match="did you mean epochs"):
        load(PROJECT_ROOT / "configs/ml-100k.yaml", ["training.epoch=1"])
    assert len(COMMANDS) > 30


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT_ROOT)))
def test_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", text):
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), f"{page.name}: no {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name}: no {target}#{anchor}"


@pytest.mark.parametrize(
    "page", WRITTEN_BY_HAND, ids=lambda page: str(page.relative_to(PROJECT_ROOT))
)
def test_named_files_of_the_repository_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(rf"`((?:{FOLDERS})/[\w./-]+\.(?:py|yaml|md|j2|sql))`", text):
        made_by_runs = name.startswith("data/") or "NAME" in name
        assert made_by_runs or (PROJECT_ROOT / name).exists(), f"{page.name}: {name}"


def test_every_page_of_docs_is_in_the_index():
    index = (PROJECT_ROOT / "docs/index.md").read_text(encoding="utf-8")
    docs = PROJECT_ROOT / "docs"
    pages = {str(page.relative_to(docs)) for page in docs.glob("**/*.md")}
    assert {page for page in pages if f"({page})" not in index} == {"index.md"}


def test_the_readme_is_a_door():
    assert len((PROJECT_ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_every_dependency_has_a_reason():
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    needed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[\[<>=]", requirement)[0] for requirement in needed}
    table = (PROJECT_ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert {name for name in names if name.casefold() not in table} == {"types-PyYAML"}
