"""YAML settings, overrides on the command line, and errors that name the key."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from models.config import Transfer, parse_yaml
from models.config.section import CREDENTIAL
from models.credentials import credential_in, is_secret_name, looks_like_key
from models.errors import BadInput, cut
from models.experiments.grid import set_at

M = TypeVar("M", bound=BaseModel)


_ALTERNATIVE = re.compile(r"constrained-\w+|literal\[.*\]")
"""How pydantic names the alternatives of a key that may be a number or a word."""
_MOST_BYTES = 2**20


def read_text(path: Path, what: str) -> str:
    """Read a text file that a person writes; BadInput if missing, not UTF-8 or far too large."""
    try:
        if not path.is_file():
            raise BadInput(f"{path}: this {what} does not exist. Correct the path")
        if path.stat().st_size > _MOST_BYTES:
            raise BadInput(f"{path}: this {what} is larger than 1 MB. Correct the path")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path}: this {what} is not UTF-8 at byte {error.start}. Save it as UTF-8"
        ) from error
    except OSError as error:
        raise BadInput(
            f"{path}: this {what} cannot be read: {error.strerror}. Correct it"
        ) from error


def read_settings(path: Path, what: str = "configuration file") -> dict[str, Any]:
    """Read the mapping that a YAML file holds; BadInput if there is none."""
    raw = parse_yaml(read_text(path, what), str(path))
    if not isinstance(raw, dict):
        raise BadInput(
            f"{path}: the file must hold a mapping of settings, not {type(raw).__name__}. Write "
            "lines of the form KEY: VALUE"
        )
    return raw


def apply(raw: dict[str, Any], override: str) -> None:
    """Put a `dotted.key=value` into settings; BadInput if malformed or through a value."""
    key, value = parse_override(override)
    try:
        set_at(raw, key, value)
    except ValueError as error:
        raise BadInput(
            f"--set {cut(override)}: {str(error).partition(': ')[2] or error}"
        ) from error


def parse_override(override: str) -> tuple[str, Any]:
    """Take a `dotted.key=value` text apart; BadInput if it is not of that form."""
    key, separator, text = override.partition("=")
    if not separator or not all(key.strip().split(".")):
        raise BadInput(
            f"--set {cut(override)}: this is no key with a value. Write dotted.key=value"
        )
    return key.strip(), parse_yaml(text, f"--set {cut(override)}")


def validate(model: type[M], settings: Mapping[str, Any], where: str | Path = "") -> M:
    """Validate settings as written; errors begin with `where`, if anything.

    Raises:
        BadInput: with every unknown key and wrong value, and a suggestion for a misspelt key.
    """
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        problems = "; ".join(_explain(error, model))
        raise BadInput(f"{where}: {problems}" if where else problems) from error


def _explain(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """One sentence per problem."""
    sentences = []
    for problem in error.errors():
        parts = [str(part) for part in problem["loc"]]
        inside = cut(".".join(part for part in parts if not _ALTERNATIVE.fullmatch(part)))
        place = inside or "the configuration"
        if problem["type"] == CREDENTIAL:
            sentences.append(f"{inside}{inside and '.'}{problem['msg']}")
        elif problem["type"] == "extra_forbidden":
            known = _keys_beside(root, problem["loc"])
            close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
            hint = f", did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
            sentences.append(f"{place} is not a known key{hint}")
        elif problem["type"] == "missing":
            sentences.append(f"{place} is required")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            given = _shown(place, problem["input"])
            sentences.append(f"{place}: {message[0].lower()}{message[1:]}{given}")
    return sentences


def _shown(place: str, given: Any) -> str:
    """A wrong value, where it is short and can be no secret."""
    name = place.rpartition(".")[2]
    plain = isinstance(given, str | int | float | bool | None)
    hidden = not plain or is_secret_name(name) or name in ("api_key_env", "base_url", "address")
    if hidden or (isinstance(given, str) and (looks_like_key(given) or credential_in(given))):
        return ""
    return f" (got {cut(repr(given))})"


def _keys_beside(root: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The known keys of the section in which the unknown key at `location` stands."""
    section: Any = root
    for part in location[:-1]:
        fields = getattr(section, "model_fields", {})
        if part in fields:
            section = fields[part].annotation
            if section == dict[str, Any]:  # models.NAME.transfer, which is checked as that section
                section = Transfer
            arguments = getattr(section, "__args__", ())
            sections = [a for a in arguments if hasattr(a, "model_fields")]
            section = sections[0] if sections else section
    return sorted(getattr(section, "model_fields", {}))
