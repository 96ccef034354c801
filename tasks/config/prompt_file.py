"""The prompt template that a configuration names, and the settings that its file may begin with.

    ---
    model: gpt-4o-mini
    temperature: 0.2
    history: {limit: 20, order: newest, ratings: hidden}
    system: You describe the taste of film viewers.
    ---
    {% block user %} … {% endblock %}

The settings hold where the configuration does not say otherwise. `system` may stand here instead
of in a block of that name. A prompt says what is asked and how, never whom: endpoint and key stay
in the configuration, so that a prompt from elsewhere cannot send a key to its own server.
"""

import re
from pathlib import Path
from typing import Any

from pydantic import Field

from models.config import LLM, History, ItemHistory, Pipeline, Profiles, Sampling, Side, parse_yaml
from models.errors import BadInput
from models.profiles.prompt_templates import Prompt, Template
from tasks.config.yaml_settings import read_text, validate
from tasks.storage.artifacts import PROJECT_ROOT

SECTIONS: dict[Side, str] = {"users": "profiles", "items": "item_profiles"}
"""The configuration's section of either side's profiles."""

_FENCED = re.compile(r"\A\ufeff?---[ \t]*\r?\n(?P<yaml>.*?)^---[ \t]*(?:\r?\n|\Z)", re.M | re.S)
_OPENED = re.compile(r"\A\ufeff?---[ \t]*\r?\n")


class FrontMatter(Sampling):
    """The settings at the top of a prompt of users; those of items have `ItemHistory`."""

    system: str | None = Field(None, pattern=r"\S", description="The system message.")
    history: History = History()


class ItemFrontMatter(FrontMatter):
    """The settings at the top of a prompt of items."""

    history: ItemHistory = ItemHistory()


def prompt_of(pipeline: Pipeline, side: Side = "users") -> Template:
    """Read the prompt template that a side's profiles depend on.

    The offline writer and imported profiles use none, so that editing a prompt leaves them cached.

    Raises:
        BadInput: if there is no such template, the message lists those there are; if its front
            matter is faulty, it does not compile, or it leaves out user fields that were asked for.
    """
    profiles = pipeline.profiles_of(side)
    if not profiles.has_prompt:
        return Template(text="")
    template, _ = _read(profiles.prompt, side)
    Prompt(template, profiles.prompt, side).require_demographics(profiles.history.demographics)
    return template


def with_front_matter(profiles: Profiles, side: Side) -> Profiles:
    """Add the settings of a section's prompt where the configuration says nothing."""
    if not profiles.has_prompt:
        return profiles
    _, front = _read(profiles.prompt, side)
    sampling = front.model_fields_set & Sampling.model_fields.keys()
    below = {
        "llm": {key: getattr(front, key) for key in sampling},
        "history": front.history.model_dump(exclude_unset=True),
    }
    merged = {}
    for name, settings in below.items():
        section = getattr(profiles, name)
        above = {key: getattr(section, key) for key in section.model_fields_set}
        if settings:
            merged[name] = section.model_validate({**settings, **above})
    return profiles.model_copy(update=merged)


def _read(name: str, side: Side) -> tuple[Template, FrontMatter]:
    for file in (PROJECT_ROOT / "prompts" / f"{name}.j2", Path(name).expanduser()):
        if file.is_file():
            return parse_prompt(read_text(file, "prompt"), name, side)
    known = sorted(file.stem for file in (PROJECT_ROOT / "prompts").glob("*.j2"))
    raise BadInput(
        f"{SECTIONS[side]}.prompt: there is no file {name} and no prompts/{name}.j2. Name a file, "
        f"or one of prompts/: {', '.join(known)}"
    )


def parse_prompt(content: str, name: str, side: Side = "users") -> tuple[Template, FrontMatter]:
    """Take a prompt's file, called `name` in messages, apart.

    Raises:
        BadInput: naming the line, for front matter that does not end or is not YAML; naming the
            key, for one that is not known or whose value is wrong.
    """
    kind = FrontMatter if side == "users" else ItemFrontMatter
    found = _FENCED.match(content)
    if found is None:
        if _OPENED.match(content):
            raise BadInput(
                f"prompt {name}, line 1: the front matter does not end. Close it with a line ---"
            )
        return Template(text=content), kind()
    settings = _settings(found["yaml"], name)
    for key in settings.keys() & LLM.model_fields.keys() - Sampling.model_fields.keys():
        raise BadInput(
            f"prompt {name}: {key} in its front matter belongs in the configuration, as "
            f"profiles.llm.{key}. A prompt may set {', '.join(kind.model_fields)}"
        )
    front = validate(kind, settings, f"prompt {name}, front matter")
    text, first_line = content[found.end() :], found[0].count("\n") + 1
    return Template(text=text, system=front.system, first_line=first_line), front


def _settings(text: str, name: str) -> dict[str, Any]:
    settings = parse_yaml(text, f"prompt {name}", first_line=2)  # after the first line of dashes
    if not isinstance(settings, dict | None):
        raise BadInput(
            f"prompt {name}: its front matter must be a mapping of settings. Write lines of the "
            "form KEY: VALUE"
        )
    return settings or {}
