"""The settings that a prompt's file may begin with: YAML between two lines of three dashes.

    ---
    model: gpt-4o-mini
    temperature: 0.2
    history: {limit: 20, order: newest, ratings: hidden}
    system: You describe the taste of film viewers.
    ---
    {% block user %} … {% endblock %}

They hold where the configuration does not say otherwise. `system` may stand here instead of in a
block of that name. A prompt says what is asked and how, never whom: endpoint and key stay in the
configuration, so that a prompt from elsewhere cannot send a key to its own server.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import Field, ValidationError

from models.config import LLM, NOT_IDENTITY, History, ItemHistory, Section, Side, parse_yaml
from models.errors import BadInput

_FENCED = re.compile(r"\A\ufeff?---[ \t]*\r?\n(?P<yaml>.*?)^---[ \t]*(?:\r?\n|\Z)", re.M | re.S)
_OPENED = re.compile(r"\A\ufeff?---[ \t]*\r?\n")
_HISTORY: dict[Side, type[History]] = {"users": History, "items": ItemHistory}


class Template(Section):
    """A prompt's text without its front matter: what decides a rendered prompt."""

    text: str
    system: str | None = Field(None, description="From the front matter.")
    first_line: int = Field(
        1, description="Where the text begins in its file.", json_schema_extra=NOT_IDENTITY
    )

    @property
    def content(self) -> str:
        """Everything that a rendered prompt depends on."""
        return "\n".join(filter(None, [self.system, self.text]))


@dataclass(frozen=True)
class PromptFile:
    """A prompt's file, taken apart.

    Attributes:
        template: what is rendered.
        llm: fields of `LLM` that the front matter sets.
        history: fields of `History` that it sets.
    """

    template: Template
    llm: Mapping[str, Any] = field(default_factory=dict)
    history: Mapping[str, Any] = field(default_factory=dict)


def model_parameters() -> list[str]:
    """The fields of `LLM` that a prompt may set: those that decide an answer but its address."""
    return [name for name in LLM().identity() if name != "base_url"]


def read_prompt(content: str, name: str, side: Side = "users") -> PromptFile:
    """Take a prompt's file apart.

    Args:
        content: the whole file.
        name: what to call it in messages.
        side: whom it describes.

    Raises:
        BadInput: naming the line, for front matter that does not end or is not YAML; naming the
            key, for one that is not known or whose value is wrong.
    """
    found = _FENCED.match(content)
    if found is None:
        if _OPENED.match(content):
            raise BadInput(
                f"prompt {name}, line 1: the front matter does not end; close it with a line ---"
            )
        return PromptFile(Template(text=content))
    settings = _settings(found["yaml"], name)
    parameters = model_parameters()
    known = [*parameters, "history", "system"]
    for key in settings:
        _require_known(str(key), known, name, "")
    system = settings.get("system")
    if system is not None and not (isinstance(system, str) and system.strip()):
        raise BadInput(f"prompt {name}: system in its front matter must be a text")
    llm = {key: settings[key] for key in parameters if key in settings}
    history = settings.get("history") or {}
    if not isinstance(history, dict):
        raise BadInput(f"prompt {name}: history in its front matter must hold limit, order, …")
    for key in history:
        _require_known(str(key), list(History.model_fields), name, "history.")
    _validate(LLM, llm, name, "")
    _validate(_HISTORY[side], history, name, "history.")
    template = Template(
        text=content[found.end() :], system=system, first_line=found[0].count("\n") + 1
    )
    return PromptFile(template, llm, history)


def _settings(text: str, name: str) -> dict[Any, Any]:
    try:
        settings = parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # Counted from 0 after the first line of dashes.
        place = f", line {mark.line + 2}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise BadInput(
            f"prompt {name}{place}: its front matter is not valid YAML: {problem}"
        ) from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise BadInput(f"prompt {name}: its front matter must be a mapping of settings")
    return settings


def _require_known(key: str, known: list[str], name: str, section: str) -> None:
    if key in known:
        return
    if not section and key in LLM.model_fields:
        raise BadInput(
            f"prompt {name}: {key} in its front matter belongs in the configuration, as "
            f"profiles.llm.{key}; a prompt may set {', '.join(known)}"
        )
    close = difflib.get_close_matches(key, known, n=1)
    hint = f", did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
    raise BadInput(f"prompt {name}: {section}{key} in its front matter is not a known key{hint}")


def _validate(section: type[Section], given: dict[str, Any], name: str, prefix: str) -> None:
    try:
        section.model_validate(given)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        raise BadInput(
            f"prompt {name}: {prefix}{place} in its front matter: {message[0].lower()}"
            f"{message[1:]} (got {problem['input']!r})"
        ) from error
