"""The prompt template that a configuration names."""

from pathlib import Path

from models.config import Pipeline, Side
from models.errors import BadInput
from models.profiles.front_matter import PromptFile, Template, read_prompt
from models.profiles.prompt_templates import Prompt
from tasks.storage.artifacts import PROJECT_ROOT

_SECTIONS: dict[Side, str] = {"users": "profiles", "items": "item_profiles"}


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
    template = _prompt_file(pipeline, side).template
    Prompt(template, profiles.prompt, side).require_demographics(profiles.history.demographics)
    return template


def _prompt_file(pipeline: Pipeline, side: Side) -> PromptFile:
    name = pipeline.profiles_of(side).prompt
    for candidate in (PROJECT_ROOT / "prompts" / f"{name}.j2", Path(name).expanduser()):
        if candidate.is_file():
            return read_prompt(_text(candidate), name, side)
    known = sorted(file.stem for file in (PROJECT_ROOT / "prompts").glob("*.j2"))
    raise BadInput(
        f"{_SECTIONS[side]}.prompt: there is no file {name} and no prompts/{name}.j2; "
        f"prompts/ has {', '.join(known)}"
    )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"prompt {file} is not UTF-8: {error}; save it as UTF-8") from error
