"""`llmkt init`: a starting configuration for files of one's own, each guess with its evidence."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from models.config import Dataset, Pipeline
from models.dataset import format_detection
from models.dataset.format_detection import Guess
from models.errors import BadInput
from tasks.inspection.dataset_check import Checked, check_pipeline
from tasks.inspection.file_sample import Note, format_of, sample
from tasks.storage.artifacts import Handoff

_FEW_USERS = 200
_ROLES = {
    "interactions": ("user", "item", "rating", "timestamp"),
    "items": ("item", "title", "year", "genres", "text"),
}


class Guessed(Handoff):
    """One guess, as it is shown."""

    file: str
    setting: str
    value: str
    evidence: str


class Started(Handoff):
    """A configuration that runs, and how it was guessed."""

    path: Path
    guesses: tuple[Guessed, ...]
    checked: Checked


def init(interactions: Path, items: Path | None, output: Path, force: bool = False) -> Started:
    """Write a configuration for files of interactions and items.

    Raises:
        BadInput: if a file does not exist or cannot be read, or `output` exists already.
    """
    if output.exists() and not force:
        raise BadInput(f"{output} exists already; name another file with -o, or add --force")
    files = {"interactions": interactions} | ({"items": items} if items else {})
    for role, file in files.items():
        if not file.is_file():
            raise BadInput(f"{role}: {file} does not exist")
    settings: dict[str, Any] = {"name": _slug(interactions)}
    guesses: list[Guessed] = []
    for role, file in files.items():
        settings[role] = str(file.resolve())
        _guess_file(role, file, settings, guesses)
    words = [settings["format"], *(file.name for file in files.values())]
    words += [str(value) for value in settings.get("columns", {}).values()]
    raw = _pipeline(settings, format_detection.subject(words), guesses, interactions)
    checked = _settle(raw, guesses, interactions)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(_text(raw, guesses), encoding="utf-8")
    return Started(path=output, guesses=tuple(guesses), checked=checked)


def _slug(file: Path) -> str:
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", file.name.split(".")[0]).strip("-.")
    return stem or "mine"


def _guess_file(role: str, file: Path, settings: dict[str, Any], guesses: list[Guessed]) -> None:
    """Add what one file tells to the settings and to the guesses."""

    def note(guess: Guess) -> None:
        value = guess.value if guess.value is not None else "–"
        guesses.append(
            Guessed(file=file.name, setting=guess.setting, value=value, evidence=guess.evidence)
        )

    if role == "interactions":
        settings["format"] = format_of(file, note)
    elif settings["format"] not in ("movielens", "amazon"):
        other = format_of(file, note)
        if (other == "parquet") != (settings["format"] == "parquet"):
            raise BadInput(
                f"items: {file} is {other}, but the interactions are {settings['format']}; "
                "convert one of them"
            )
    if settings["format"] in ("movielens", "amazon"):
        return
    names, rows = sample(role, file, settings, note)
    found = format_detection.columns(names, rows, _ROLES[role])
    values = {guess.setting.removeprefix("columns."): guess for guess in found}
    for guess in found:
        note(guess)
    _require_ids(role, file, values, names)
    of = settings.setdefault("columns", {})
    for name, guess in values.items():
        if name == "text":
            of.update({"text": [guess.value]} if guess.value else {})
        elif role == "items" and name == "item":
            of.update({"item_file_item": guess.value} if guess.value != of["item"] else {})
        else:
            of[name] = guess.value
    _details(names, rows, values, settings, note)


def _details(
    names: list[str],
    rows: list[list[str]],
    values: dict[str, Guess],
    settings: dict[str, Any],
    note: Note,
) -> None:
    """Units, separators and years, from the columns' values."""

    def column(name: str) -> list[str]:
        chosen = values[name].value if name in values else None
        return (
            [row[names.index(chosen)] for row in rows if row[names.index(chosen)]] if chosen else []
        )

    for name, setting, guess in (
        ("timestamp", "timestamp_unit", format_detection.unit),
        ("genres", "genre_separator", format_detection.genre_separator),
        ("title", "year_from_title", format_detection.year_from_title),
    ):
        if column(name):
            found = guess(column(name))
            note(found)
            settings[setting] = {"true": True, "false": False}.get(str(found.value), found.value)


def _require_ids(role: str, file: Path, values: dict[str, Guess], names: list[str]) -> None:
    lacking = [name for name in ("user", "item") if name in values and values[name].value is None]
    if lacking:
        raise BadInput(
            f"{role}: no column of {file} looks like the {' and the '.join(lacking)}; it has "
            f"{', '.join(names)[:300]}: write the configuration by hand, see docs/data.md"
        )


def _pipeline(
    settings: dict[str, Any], kind: Guess, guesses: list[Guessed], file: Path
) -> dict[str, Any]:
    guesses.append(
        Guessed(file=file.name, setting=kind.setting, value=str(kind.value), evidence=kind.evidence)
    )
    return {
        "experiment": settings["name"],
        "size": "default",
        "dataset": settings,
        "split": {"strategy": "random", "ratios": [0.7, 0.1, 0.2], "seed": 2026},
        "profiles": {"provider": "offline", "prompt": f"user-{kind.value}"},
        "item_profiles": {"prompt": f"item-{kind.value}"},
        "models": {
            "BPR": {"hyperparameters": {"learning_rate": 0.002}},
            "MultiVAE": {"hyperparameters": {"learning_rate": 0.002, "train_batch_size": 256}},
            "EASE": {},
            "Pop": {},
        },
        "evaluation": {"k": [5, 10, 20], "primary": "ndcg@10"},
    }


def _settle(raw: dict[str, Any], guesses: list[Guessed], file: Path) -> Checked:
    """Look at the data as a run would, and set what it needs to go through."""

    def note(setting: str, value: Any, evidence: str) -> None:
        guesses.append(
            Guessed(file=file.name, setting=setting, value=str(value), evidence=evidence)
        )

    checked = _checked(raw)
    bad = [problem for problem in checked.problems if problem.rows]
    if bad:
        n = sum(problem.count for problem in bad)
        raw["dataset"]["bad_rows"] = "quarantine"
        note(
            "bad_rows",
            "quarantine",
            f"{n} rows cannot be read: {bad[0].what}, row {bad[0].rows[0]}",
        )
        checked = _checked(raw)
    if checked.kept and checked.kept.per_user.get("min", 3) < 3:
        raw["split"]["short_histories"] = "train"
        note("split.short_histories", "train", "some users have fewer than 3 interactions")
        checked = _checked(raw)
    if checked.kept and checked.kept.users < _FEW_USERS:
        small = {"learning_rate": 0.002, "embedding_size": 16}
        raw["models"] = {"BPR": {"hyperparameters": small}, "EASE": {}, "Pop": {}}
        raw["targets"] = {"reduction": "pca"}
        note("embedding_size", 16, f"{checked.kept.users} users do not fill 64 columns")
    if checked.catalogue is not None and checked.catalogue < 20:
        ks = [k for k in (5, 10) if k <= checked.catalogue] or [checked.catalogue]
        raw["evaluation"] = {"k": ks, "primary": f"ndcg@{ks[-1]}"}
        raw["training"] = {"valid_metric": f"ndcg@{ks[-1]}"}
        note("evaluation.k", ks, f"there are {checked.catalogue} items")
        checked = _checked(raw)
    if checked.refused:
        raise BadInput(next(problem.what for problem in checked.problems if problem.refused))
    return checked


def _checked(raw: dict[str, Any]) -> Checked:
    try:
        Dataset.model_validate(raw["dataset"])
        return check_pipeline(Pipeline.model_validate(raw))
    except ValidationError as error:
        raise BadInput(f"no configuration could be guessed: {error.errors()[0]['msg']}") from error


def _text(raw: dict[str, Any], guesses: list[Guessed]) -> str:
    lines = ["# Guessed by llmkt init; correct what is wrong, see docs/data.md."]
    lines += [f"#   {of.setting}: {of.value} ({of.file}: {of.evidence})" for of in guesses]
    comments = "\n".join(line.replace("\t", "\\t") for line in lines)
    body = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return f"{comments}\n{body}"
