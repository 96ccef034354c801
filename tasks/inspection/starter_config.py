"""`llmkt init`: a starting configuration for files of one's own, each guess with its evidence."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import ValidationError

from models.config import Pipeline
from models.dataset import column_detection, json_lines
from models.dataset.column_detection import NOTHING, Guess
from models.dataset.delimited_text import DETECT, Dialect, records
from models.dataset.dialect_detection import detect, quoting_of
from models.dataset.file_layouts import MOVIELENS
from models.dataset.text_encoding import detect_encoding
from models.errors import BadInput
from tasks.inspection.dataset_check import Checked, Problem, check
from tasks.storage.artifacts import Handoff
from tasks.storage.text_files import is_parquet, text_source

_FEW_USERS = 200
_ROWS = 200
_IDS = ("columns.user", "columns.item")
_MOVIELENS = re.compile(r"::|^\d+\t\d+\t\d+\t\d+$|\|")
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
    unsure: bool = False


class Started(Handoff):
    """A configuration, how it was guessed, and whether it runs."""

    path: Path
    guesses: tuple[Guessed, ...]
    checked: Checked
    unsure: tuple[str, ...] = ()
    """What was left out, and why."""
    refused: bool = False
    """Whether a run would stop, or a file could not be read at all."""


def init(interactions: Path, items: Path | None, output: Path, force: bool = False) -> Started:
    """Write the configuration `output` for files of interactions and items; `force` overwrites.

    What is unsure is left out and stands in a comment. The file is written even where a run would
    refuse the data: `Started.checked` says why.

    Raises:
        BadInput: if a file does not exist, the interactions cannot be read at all, or `output`
            exists already.
    """
    if output.exists() and not force:
        raise BadInput(f"{output} exists already. Name another file with -o, or add --force.")
    files = {"interactions": interactions} | ({"items": items} if items else {})
    for role, file in files.items():
        if not file.is_file():
            raise BadInput(f"{role}: {file} does not exist. Correct the path.")
    settings: dict[str, Any] = {"name": _slug(interactions)}
    guesses: list[Guessed] = []
    ids: set[str] = set()
    for role, file in files.items():
        try:
            guesses += _shown(file, *_guess_file(role, file, settings, ids))
        except BadInput as error:
            if role == "interactions":
                raise
            guesses += _shown(file, Guess(role, None, str(error)))
    words = [settings["format"], *(file.name for file in files.values())]
    words += [str(value) for value in settings.get("columns", {}).values()]
    kind = column_detection.subject(words)
    if settings.get("feedback") == "counts":
        kind = Guess("prompts", "counts", "feedback is counts")
    raw = _pipeline(settings, str(kind.value))
    checked, needed = _adapted(raw)
    guesses += _shown(interactions, kind, *needed)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(_text(raw, guesses, checked), encoding="utf-8")
    unread = [guess for guess in guesses if guess.setting in files]
    return Started(
        path=output,
        guesses=tuple(guesses),
        checked=checked,
        unsure=tuple(f"{guess.setting}: {guess.evidence}" for guess in guesses if guess.unsure),
        refused=checked.refused or bool(unread),
    )


def _shown(file: Path, *guesses: Guess) -> list[Guessed]:
    return [
        Guessed(
            file=file.name,
            setting=guess.setting,
            value="–" if guess.value is None else guess.value,
            evidence=guess.evidence,
            unsure=guess.value is None and guess.evidence != NOTHING,
        )
        for guess in guesses
    ]


def _slug(file: Path) -> str:
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", file.name.split(".")[0]).strip("-.")
    return stem or "mine"


def _guess_file(role: str, file: Path, settings: dict[str, Any], ids: set[str]) -> list[Guess]:
    """Add what one file shows to the settings, and give the evidence.

    `ids` is filled with items of the interactions, by which the item file's column is chosen.
    """
    kind = _format_of(file)
    whole = str(settings.get("format", kind.value))
    if whole in ("movielens", "amazon"):
        settings |= {"format": whole, role: str(file.resolve())}
        return [kind] if role == "interactions" else []
    found = _sample(file, str(kind.value))
    settings[role] = str(file.resolve())
    _set_dialect(role, {"format": kind.value} | _written(found.dialect), settings)
    columns = column_detection.columns(found.names, found.rows, _ROLES[role])
    names = {guess.setting.removeprefix("columns."): guess.value for guess in columns}
    if role == "items" and (better := _item_column(found, names["item"], ids)):
        columns[0] = Guess("columns.item", better, "it holds the items of the interactions")
        names = {name: None if column == better else column for name, column in names.items()}
        names["item"] = better
    elif role == "interactions" and names["item"] is not None:
        ids |= {row[found.names.index(names["item"])] for row in found.rows}
    _set_columns(role, names, settings)
    has = f"set it to one of {', '.join(found.names)[:300]}"
    columns = [
        Guess(guess.setting, None, has) if guess.setting in _IDS and not guess.value else guess
        for guess in columns
    ]
    return [kind, *found.guesses, *columns, *_details(found, names, settings)]


def _item_column(found: Sample, named: str | None, ids: set[str]) -> str | None:
    """The column that holds the items of the interactions, unless the named one does."""
    values = {name: {row[n] for row in found.rows} for n, name in enumerate(found.names)}
    shared = {name: len(column & ids) for name, column in values.items()}
    best = max(shared, key=lambda name: shared[name], default=None)
    return None if best is None or not shared[best] or shared.get(named or "", 0) else best


def _format_of(file: Path) -> Guess:
    """Guess the format of a file by its content: `csv` stands for every delimited text."""
    if is_parquet(file):
        return Guess("format", "parquet", "by its first bytes")
    lines = records(text_source(file, file.name), Dialect(quoted=False, encoding=DETECT), file.name)
    first = next(lines, None)
    line = str(first["line"][0]) if first is not None and first.num_rows else ""
    published = {known for files in MOVIELENS.values() for known in files}
    if file.name in published and not file.name.endswith(".csv") and _MOVIELENS.search(line):
        return Guess("format", "movielens", f"{file.name} is what MovieLens calls it")
    if re.match(r"\s*(\{|\[\s*(\{|$))", line):
        if re.search(r"[\"'](asin|parent_asin)[\"']", line):
            return Guess("format", "amazon", "its first line is JSON with asin")
        return Guess("format", "jsonl", "its first line is JSON")
    return Guess("format", "csv", "its first line is neither JSON nor Parquet")


def _sample(file: Path, kind: str) -> Sample:
    """Read rows of a file of kind `csv`, `jsonl` or `parquet`."""
    if kind == "parquet":
        return _parquet_sample(file)
    source = text_source(file, file.name)
    if kind == "jsonl":
        encoding, seen = detect_encoding(source, file.name)
        dialect = Dialect(quoted=False, encoding=encoding)
        names, rows = json_lines.sample(source, dialect, file.name)
        return Sample(names, rows, dialect, [Guess("encoding", encoding, seen)])
    found = detect(source, file.name)
    return Sample(list(found.dialect.names), found.rows, found.dialect, found.guesses)


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


def _written(dialect: Dialect | None) -> dict[str, Any]:
    """How a file is written, as settings."""
    if dialect is None:
        return {}
    if not dialect.names:
        return {"encoding": dialect.encoding}
    return {
        "encoding": dialect.encoding,
        "delimiter": dialect.delimiter,
        "quoting": quoting_of(dialect),
        "header": dialect.header,
    }


def _set_dialect(role: str, written: dict[str, Any], settings: dict[str, Any]) -> None:
    """Set how a file is written; what differs from the interactions is set for it alone."""
    if role == "interactions":
        settings.update(written)
        return
    own = {key: value for key, value in written.items() if settings.get(key) != value}
    if own:
        settings.setdefault("formats", {})[role] = own


def _set_columns(role: str, names: dict[str, str | None], settings: dict[str, Any]) -> None:
    columns = settings.setdefault("columns", {})
    for name, column in names.items():
        if name == "text":
            columns.update({"text": [column]} if column else {})
        elif name in ("user", "item") and column is None:
            continue  # Whoever reads the file sets it.
        elif role == "items" and name == "item":
            columns.update({"item_file_item": column} if column != columns.get("item") else {})
        else:
            columns[name] = column


def _details(found: Sample, names: dict[str, str | None], settings: dict[str, Any]) -> list[Guess]:
    """Set units, separators and years from the columns' values."""
    guesses = []
    for name, guess in (
        ("timestamp", column_detection.unit),
        ("rating", column_detection.decimal_mark),
        ("rating", partial(column_detection.feedback, names.get("rating") or "")),
        ("genres", column_detection.genre_separator),
        ("title", column_detection.year_from_title),
    ):
        column = names.get(name)
        place = found.names.index(column) if column else 0
        values = [row[place] for row in found.rows if row[place]] if column else []
        if values and (detail := guess(values)).value is not None:
            is_flag = detail.value in ("true", "false")
            settings[detail.setting] = detail.value == "true" if is_flag else detail.value
            guesses.append(detail)
    return guesses


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
    if bad and _mostly_good(raw["dataset"], checked, bad):
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
        width = max(2, min(16, checked.kept.users - 2))
        small = {"learning_rate": 0.002, "embedding_size": width}
        raw["models"] = {"BPR": {"hyperparameters": small}, "EASE": {}, "Pop": {}}
        raw["targets"] = {"reduction": "pca"}
        evidence = f"{checked.kept.users} users do not fill 64 columns"
        needed.append(Guess("embedding_size", str(width), evidence))
    if checked.catalogue is not None and 0 < checked.catalogue < 20:
        ks = [k for k in (5, 10) if k <= checked.catalogue] or [checked.catalogue]
        raw["evaluation"] = {"k": ks, "primary": f"ndcg@{ks[-1]}"}
        raw["training"] = {"valid_metric": f"ndcg@{ks[-1]}"}
        needed.append(Guess("evaluation.k", str(ks), f"there are {checked.catalogue} items"))
        checked = _checked(raw)
    return checked, needed


def _mostly_good(dataset: dict[str, Any], checked: Checked, bad: list[Problem]) -> bool:
    """Whether each file has more good rows than bad ones: else it is read wrongly."""
    good = {
        "interactions": checked.read.interactions if checked.read else 0,
        "items": checked.described or 0,
    }
    counts: Counter[str] = Counter()
    for problem in bad:
        counts["items" if problem.file == dataset.get("items") else "interactions"] += problem.count
    return all(counts[role] < n for role, n in good.items() if counts[role])


def _checked(raw: dict[str, Any]) -> Checked:
    try:
        return check(Pipeline.model_validate(raw))
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise BadInput(f"init: no configuration fits ({reason}). Write it by hand.") from error


def _text(raw: dict[str, Any], guesses: list[Guessed], checked: Checked) -> str:
    lines = ["Guessed by llmkt init; correct what is wrong, see docs/data.md."]
    lines += [f"A run is refused: {one.what}" for one in checked.problems if one.refused]
    lines += [
        f"  {guess.setting}: {guess.value} ({guess.file}: {guess.evidence})" for guess in guesses
    ]
    # Whatever a file says stays in its comment.
    comments = "\n".join("# " + " ".join(line.replace("\t", "\\t").split("\n")) for line in lines)
    body = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return f"{comments}\n{body}"
