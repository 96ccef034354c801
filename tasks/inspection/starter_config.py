"""`llmkt init`: a starting configuration for files of one's own, each guess with its evidence."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import ValidationError

from models.config import Pipeline
from models.dataset import column_detection
from models.dataset.column_detection import Guess
from models.dataset.delimited_text import Dialect, detect, records
from models.dataset.file_layouts import MOVIELENS
from models.errors import BadInput
from tasks.inspection.dataset_check import Checked, check_pipeline
from tasks.storage.artifacts import Handoff
from tasks.storage.text_files import text_source

_FEW_USERS = 200
_ROWS = 200
_ROLES = {
    "interactions": ("user", "item", "rating", "timestamp"),
    "items": ("item", "title", "year", "genres", "text"),
}


@dataclass(frozen=True)
class Sample:
    """Names of columns, the first rows' values, and the dialect (None for Parquet)."""

    names: list[str]
    rows: list[list[str]]
    dialect: Dialect | None
    guesses: list[Guess]


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
    """Write the configuration `output` for files of interactions and items; `force` overwrites.

    Raises:
        BadInput: if a file does not exist or cannot be read, or `output` exists already.
    """
    if output.exists() and not force:
        raise BadInput(f"{output} exists already. Name another file with -o, or add --force.")
    files = {"interactions": interactions} | ({"items": items} if items else {})
    for role, file in files.items():
        if not file.is_file():
            raise BadInput(f"{role}: {file} does not exist. Correct the path.")
    settings: dict[str, Any] = {"name": _slug(interactions)}
    guesses: list[Guessed] = []
    for role, file in files.items():
        settings[role] = str(file.resolve())
        guesses += _shown(file, *_guess_file(role, file, settings))
    words = [settings["format"], *(file.name for file in files.values())]
    words += [str(value) for value in settings.get("columns", {}).values()]
    kind = column_detection.subject(words)
    raw = _pipeline(settings, str(kind.value))
    checked, needed = _adapted(raw)
    guesses += _shown(interactions, kind, *needed)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(_text(raw, guesses), encoding="utf-8")
    return Started(path=output, guesses=tuple(guesses), checked=checked)


def _shown(file: Path, *guesses: Guess) -> list[Guessed]:
    return [
        Guessed(
            file=file.name,
            setting=guess.setting,
            value="–" if guess.value is None else guess.value,
            evidence=guess.evidence,
        )
        for guess in guesses
    ]


def _slug(file: Path) -> str:
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", file.name.split(".")[0]).strip("-.")
    return stem or "mine"


def _guess_file(role: str, file: Path, settings: dict[str, Any]) -> list[Guess]:
    """Add what one file shows to the settings, and give the evidence."""
    kind = _format_of(file)
    whole = str(settings.setdefault("format", kind.value))
    if whole in ("movielens", "amazon"):
        return [kind] if role == "interactions" else []
    if (kind.value == "parquet") != (whole == "parquet"):
        raise BadInput(
            f"items: {file} is {kind.value}, but the interactions are {whole}. Convert one of them."
        )
    found = _sample(file, whole)
    if found.dialect is not None:
        _set_dialect(found.dialect, file, settings)
    columns = column_detection.columns(found.names, found.rows, _ROLES[role])
    names = {guess.setting.removeprefix("columns."): guess.value for guess in columns}
    _require_ids(role, file, names, found.names)
    _set_columns(role, names, settings)
    return [kind, *found.guesses, *columns, *_details(found, names, settings)]


def _format_of(file: Path) -> Guess:
    """Guess the format of a file: `csv` stands for every delimited text."""
    name = re.sub(r"\.(gz|bz2|xz)$", "", file.name.lower())
    published = {known for files in MOVIELENS.values() for known in files}
    if file.name in published and not name.endswith(".csv"):
        return Guess("format", "movielens", f"{file.name} is what MovieLens calls it")
    if name.endswith((".parquet", ".pq")):
        return Guess("format", "parquet", "by its name")
    if name.endswith((".json", ".jsonl")):
        first = next(records(text_source(file, file.name), Dialect(quoted=False), file.name), None)
        if first and re.search(r"[\"'](asin|parent_asin)[\"']", first["line"][0].as_py()):
            return Guess("format", "amazon", "its first line is JSON with asin")
        raise BadInput(f"{file}: JSON, but not of Amazon Reviews. Convert it to CSV or Parquet.")
    return Guess("format", "csv", "no other format has such a name")


def _sample(file: Path, kind: str) -> Sample:
    """Read the first rows of a file of kind `csv` or `parquet`."""
    if kind == "parquet":
        return _parquet_sample(file)
    dialect, rows, guesses = detect(text_source(file, file.name), file.name)
    return Sample(list(dialect.names), rows, dialect, guesses)


def _parquet_sample(file: Path) -> Sample:
    try:
        source = pq.ParquetFile(file)
        batch = next(source.iter_batches(_ROWS), None)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(
            f"{file}: it cannot be read as Parquet ({error}). Write it again."
        ) from error
    rows = batch.to_pylist() if batch is not None else []
    values = [[_cell(value) for value in row.values()] for row in rows]
    return Sample(source.schema_arrow.names, values, None, [])


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return "|".join(map(str, value))
    return "" if value is None else str(value)


def _set_dialect(dialect: Dialect, file: Path, settings: dict[str, Any]) -> None:
    """Set how text is written, for both files alike."""
    written = {
        "encoding": dialect.encoding,
        "delimiter": dialect.delimiter,
        "quoting": "double" if dialect.quoted else "none",
        "header": dialect.header,
    }
    for key, value in written.items():
        before = settings.setdefault(key, value)
        if before == value:
            continue
        if key in ("delimiter", "header"):
            raise BadInput(
                f"items: {file} has {key} {value!r}, but the interactions have {before!r}. Write "
                "both alike."
            )
        either = {str(before), str(value)}
        settings[key] = next((safe for safe in ("double", "latin-1") if safe in either), value)


def _set_columns(role: str, names: dict[str, str | None], settings: dict[str, Any]) -> None:
    columns = settings.setdefault("columns", {})
    for name, column in names.items():
        if name == "text":
            columns.update({"text": [column]} if column else {})
        elif role == "items" and name == "item":
            columns.update({"item_file_item": column} if column != columns["item"] else {})
        else:
            columns[name] = column


def _details(found: Sample, names: dict[str, str | None], settings: dict[str, Any]) -> list[Guess]:
    """Set units, separators and years from the columns' values."""
    guesses = []
    for name, guess in (
        ("timestamp", column_detection.unit),
        ("genres", column_detection.genre_separator),
        ("title", column_detection.year_from_title),
    ):
        column = names.get(name)
        place = found.names.index(column) if column else 0
        values = [row[place] for row in found.rows if row[place]] if column else []
        if values:
            detail = guess(values)
            is_flag = detail.value in ("true", "false")
            settings[detail.setting] = detail.value == "true" if is_flag else detail.value
            guesses.append(detail)
    return guesses


def _require_ids(role: str, file: Path, names: dict[str, str | None], has: list[str]) -> None:
    lacking = [name for name in ("user", "item") if name in names and names[name] is None]
    if lacking:
        raise BadInput(
            f"{role}: no column of {file} looks like the {' and the '.join(lacking)}; it has "
            f"{', '.join(has)[:300]}. Write the configuration by hand, see docs/data.md."
        )


def _pipeline(settings: dict[str, Any], subject: str) -> dict[str, Any]:
    return {
        "experiment": settings["name"],
        "size": "default",
        "dataset": settings,
        "split": {"strategy": "random", "ratios": [0.7, 0.1, 0.2], "seed": 2026},
        "profiles": {"provider": "offline", "prompt": f"user-{subject}"},
        "item_profiles": {"prompt": f"item-{subject}"},
        "models": {
            "BPR": {"hyperparameters": {"learning_rate": 0.002}},
            "MultiVAE": {"hyperparameters": {"learning_rate": 0.002, "train_batch_size": 256}},
            "EASE": {},
            "Pop": {},
        },
        "evaluation": {"k": [5, 10, 20], "primary": "ndcg@10"},
    }


def _adapted(raw: dict[str, Any]) -> tuple[Checked, list[Guess]]:
    """Check the data as a run would, and set what they need to go through."""
    needed = []
    checked = _checked(raw)
    bad = [problem for problem in checked.problems if problem.rows]
    if bad:
        n = sum(problem.count for problem in bad)
        evidence = f"{n} rows cannot be read: {bad[0].what}, row {bad[0].rows[0]}"
        needed.append(Guess("bad_rows", "quarantine", evidence))
        raw["dataset"]["bad_rows"] = "quarantine"
        checked = _checked(raw)
    if checked.kept and checked.kept.per_user.get("min", 3) < 3:
        evidence = "some users have fewer than 3 interactions"
        needed.append(Guess("split.short_histories", "train", evidence))
        raw["split"]["short_histories"] = "train"
        checked = _checked(raw)
    if checked.kept and checked.kept.users < _FEW_USERS:
        small = {"learning_rate": 0.002, "embedding_size": 16}
        raw["models"] = {"BPR": {"hyperparameters": small}, "EASE": {}, "Pop": {}}
        raw["targets"] = {"reduction": "pca"}
        evidence = f"{checked.kept.users} users do not fill 64 columns"
        needed.append(Guess("embedding_size", "16", evidence))
    if checked.catalogue is not None and checked.catalogue < 20:
        ks = [k for k in (5, 10) if k <= checked.catalogue] or [checked.catalogue]
        raw["evaluation"] = {"k": ks, "primary": f"ndcg@{ks[-1]}"}
        raw["training"] = {"valid_metric": f"ndcg@{ks[-1]}"}
        needed.append(Guess("evaluation.k", str(ks), f"there are {checked.catalogue} items"))
        checked = _checked(raw)
    if checked.refused:
        raise BadInput(next(problem.what for problem in checked.problems if problem.refused))
    return checked, needed


def _checked(raw: dict[str, Any]) -> Checked:
    try:
        return check_pipeline(Pipeline.model_validate(raw))
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise BadInput(f"init: no configuration fits ({reason}). Write it by hand.") from error


def _text(raw: dict[str, Any], guesses: list[Guessed]) -> str:
    lines = ["# Guessed by llmkt init; correct what is wrong, see docs/data.md."]
    lines += [
        f"#   {guess.setting}: {guess.value} ({guess.file}: {guess.evidence})" for guess in guesses
    ]
    comments = "\n".join(line.replace("\t", "\\t") for line in lines)
    body = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return f"{comments}\n{body}"
