"""The prompt template that a configuration names."""

from pathlib import Path

from models.config import Pipeline, Side
from models.errors import BadInput
from models.profiles.front_matter import PromptFile, Template, read_prompt
from models.profiles.prompt_templates import Prompt
from tasks.storage.artifacts import PROJECT_ROOT

SECTIONS: dict[Side, str] = {"users": "profiles", "items": "item_profiles"}
"""The section of a pipeline that says how a side's profiles are written."""


def prompt_of(pipeline: Pipeline, side: Side = "users") -> Template:
    """The prompt template that a side's profiles depend on, without its settings: see `load`.

    The offline writer and imported profiles use none, so that editing a prompt leaves them cached.

    Raises:
        BadInput: if there is no such template, the message lists those there are; if its front
            matter is faulty, it does not compile, or it leaves out user fields that were asked for.
    """
    profiles = pipeline.profiles_of(side)
    if not profiles.asks:
        return Template(text="")
    template = prompt_file_of(pipeline, side).template
    Prompt(template, profiles.prompt, side).require_demographics(profiles.history.demographics)
    return template


def prompt_file_of(pipeline: Pipeline, side: Side) -> PromptFile:
    """The template and the settings in its front matter; for errors see `prompt_of`."""
    name = pipeline.profiles_of(side).prompt
    for candidate in (PROJECT_ROOT / "prompts" / f"{name}.j2", Path(name).expanduser()):
        if candidate.is_file():
            try:
                return read_prompt(candidate.read_text(encoding="utf-8"), name, side)
            except UnicodeDecodeError as error:
                raise BadInput(
                    f"prompt {candidate} is not UTF-8: {error}. Save it as UTF-8"
                ) from error
    known = sorted(file.stem for file in (PROJECT_ROOT / "prompts").glob("*.j2"))
    raise BadInput(
        f"{SECTIONS[side]}.prompt: there is no file {name} and no prompts/{name}.j2; "
        f"prompts/ has {', '.join(known)}"
    )
