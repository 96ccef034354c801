"""The tutorial's commands, in its order, on a small CSV file."""

import re
import shlex
import subprocess

import numpy as np
import pytest

from tasks.storage.artifacts import PROJECT_ROOT
from tests.support.toy_project import World

TUTORIAL = (PROJECT_ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
BLOCKS = [block.replace("\\\n", " ") for block in re.findall(r"```\n(.*?)```", TUTORIAL, re.DOTALL)]
FAST = ("--set", "embeddings.provider=hashing")
"""Added to what embeds, so that the test loads no text model."""


def write_recbole_files(folder):
    """60 users of two tastes and 40 films, as RecBole's package has MovieLens-100k."""
    rng = np.random.default_rng(3)
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(60):
        for item in rng.permutation(20)[:10] + 20 * (user % 2):
            time = 881250949 + rng.integers(1, 10**7)
            lines.append(f"{150 + user}\t{item}\t{rng.integers(1, 6)}\t{time}")
    (folder / "ml-100k.inter").write_text("\n".join(lines) + "\n")
    films = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
    for item in range(40):
        kind = "Comedy Romance" if item < 20 else "Horror Thriller"
        films.append(f'{item}\tFilm, "The {item}"\t{1960 + item}\t{kind}')
    (folder / "ml-100k.item").write_text("\n".join(films) + "\n")


def test_the_tutorial_ends_with_published_lists(tmp_path, prefect_server, monkeypatch):
    write_recbole_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    world = World(tmp_path, tmp_path / "data", tmp_path / "mine.yaml", prefect_server)
    shown = {}
    for block in BLOCKS:
        if "OPENAI_API_KEY" in block or "make setup" in block:
            continue
        if "sed " in block:
            script = re.sub(r"SOURCE=.*", f"SOURCE={tmp_path}", block)
            subprocess.run(["bash", "-ec", script], check=True)
            continue
        for line in block.splitlines():
            command, *words = shlex.split(line, comments=True)
            assert command == ".venv/bin/llmkt"
            done = world.llmkt(*words, *(FAST if words[0] in ("run", "nightly") else ()))
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            shown[words[0]] = done.stdout
    settings = world.config.read_text()
    assert "genre_separator: ' '" in settings
    assert "quoting: double" in settings
    assert "NDCG@10" in shown["run"]
    assert shown["report"].strip().endswith("ratings.html")
    assert 'Film, "The' in shown["recommend"]


def test_the_tutorials_llm_is_asked_within_its_budget():
    (block,) = [block for block in BLOCKS if "OPENAI_API_KEY" in block]
    assert "profiles.provider=openai" in block
    assert "profiles.llm.budget_usd" in block


@pytest.mark.parametrize("step", ["init", "data check", "run", "compare", "nightly", "recommend"])
def test_the_tutorial_has_its_steps(step):
    assert any(f"llmkt {step}" in block for block in BLOCKS)
