"""One YAML file in, one validated `Pipeline` out, with errors that name file, key and fix."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from prefect.blocks.system import Secret
from pydantic import BaseModel, ValidationError

from models.config import LLM, Embeddings, Pipeline, Profiles, Side, parse_yaml
from models.errors import BadInput
from models.front_matter import PromptFile, Template, read_prompt
from models.grid import merged, set_at
from models.prices import PriceTable
from models.prompts import Prompt
from tasks.devices import placed
from tasks.storage import PROJECT_ROOT

_PRICES = Path(__file__).parent / "prices.yaml"
_PRESETS = PROJECT_ROOT / "configs" / "presets"
_SECTIONS: dict[Side, str] = {"users": "profiles", "items": "item_profiles"}


def load(path: Path, overrides: Sequence[str] = ()) -> Pipeline:
    """Read a pipeline configuration.

    Where an LLM writes profiles, what file and overrides name goes before the front matter of
    the prompt, and that before the defaults; whoever asks the result sees the outcome.

    Args:
        path: the YAML file.
        overrides: `dotted.key=value` texts, the value in YAML, applied over the file.

    Raises:
        BadInput: for a missing or malformed file and for every unknown key or wrong value, in a
            prompt's front matter too.
    """
    raw = read_settings(path)
    for override in overrides:
        apply(raw, override)
    return validated(raw, str(path))


def given(config: Pipeline | Path, overrides: Sequence[str] = ()) -> Pipeline:
    """What a flow was called with, as a pipeline for this machine; see `load`."""
    return placed(config) if isinstance(config, Pipeline) else load(config, overrides)


def validated(raw: Mapping[str, Any], where: str) -> Pipeline:
    """The pipeline that settings make, with their preset and their prompts' settings below them.

    Its devices are those of this machine, see `tasks.devices.placed`.

    Args:
        raw: the settings as written.
        where: what errors name in front of the key: the file, and perhaps a point in it.

    Raises:
        BadInput: as `load`.
    """
    settings = merged(_preset(raw["preset"], where), raw) if raw.get("preset") else raw
    try:
        pipeline = Pipeline.model_validate(settings)
    except ValidationError as error:
        raise BadInput(f"{where}: " + "; ".join(explain(error, Pipeline))) from error
    settled = {section: _settled(pipeline, side) for side, section in _SECTIONS.items()}
    try:
        return placed(pipeline.model_copy(update=settled))
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error


def _preset(name: object, where: str) -> dict[str, Any]:
    known = sorted(file.stem for file in _PRESETS.glob("*.yaml"))
    if name not in known:
        raise BadInput(f"{where}: preset: there is no {name}, only {', '.join(known)}")
    return read_settings(_PRESETS / f"{name}.yaml", "preset")


def _settled(pipeline: Pipeline, side: Side) -> Profiles:
    """A side's profiles with the front matter of their prompt under what the file says."""
    profiles = pipeline.profiles_of(side)
    if not profiles.asks:
        return profiles
    prompt = _prompt_file(pipeline, side)
    merged = {
        name: section.model_validate(
            {**of_prompt, **{key: getattr(section, key) for key in section.model_fields_set}}
        )
        for name, section, of_prompt in (
            ("llm", profiles.llm, prompt.llm),
            ("history", profiles.history, prompt.history),
        )
        if of_prompt
    }
    return profiles.model_copy(update=merged)


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


def price_table(path: Path | None) -> PriceTable:
    """The prices of LLMs.

    Args:
        path: a table of the user's own; None means the one that comes with the project.

    Raises:
        BadInput: for a missing or malformed file and for every wrong or missing field.
    """
    path = path.expanduser() if path else _PRICES
    try:
        return PriceTable.model_validate(read_settings(path, "price table"))
    except ValidationError as error:
        raise BadInput(f"{path}: " + "; ".join(explain(error, PriceTable))) from error


def api_key(config: LLM | Embeddings) -> str:
    """The endpoint's key, from the Prefect Secret block if one is named, else the environment.

    Raises:
        BadInput: if there is none, or it holds what no header can carry; the message names the
            variable or the block, never the key.
    """
    section = "profiles.llm" if isinstance(config, LLM) else "embeddings"
    if config.api_key_secret is not None:
        source = f"Prefect Secret {config.api_key_secret}"
        try:
            key = str(cast("Secret[str]", Secret.load(config.api_key_secret)).get()).strip()
        except ValueError:
            raise BadInput(
                f"{section}.api_key_secret: there is no {source}; create the block, or leave "
                f"the option empty to use the environment variable {config.api_key_env}"
            ) from None
    else:
        source = f"environment variable {config.api_key_env}"
        key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        without = {
            "profiles.llm": "profiles.provider to offline",
            "embeddings": "embeddings.provider to sentence-transformers",
        }
        raise BadInput(
            f"{section}: the {source} is empty, so there is no key; set the environment variable "
            f"{config.api_key_env} (to any word for a server that checks none), or name a Prefect "
            f"Secret block in {section}.api_key_secret, or set {without[section]}"
        )
    if not (key.isascii() and key.isprintable()):
        raise BadInput(f"{section}: the {source} holds characters that no key has; correct it")
    return key


def read_settings(path: Path, what: str = "configuration file") -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        BadInput: if there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise BadInput(f"{what} {path} does not exist")
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise BadInput(f"{path} must hold a mapping of settings, not {type(raw).__name__}")
    return raw


def apply(raw: dict[str, Any], override: str) -> None:
    """Put the value of a `dotted.key=value` text into settings.

    Raises:
        BadInput: if it is not of that form, or the key leads through a value.
    """
    key, value = parse_override(override)
    try:
        set_at(raw, key, value)
    except ValueError as error:
        raise BadInput(f"--set {override}: {str(error).partition(': ')[2] or error}") from error


def parse_override(override: str) -> tuple[str, Any]:
    """Key and value of a `dotted.key=value` text.

    Raises:
        BadInput: if it is not of that form.
    """
    key, separator, text = override.partition("=")
    if not separator or not all(key.strip().split(".")):
        raise BadInput(f"--set {override}: write it as dotted.key=value")
    try:
        return key.strip(), parse_yaml(text)
    except yaml.YAMLError as error:
        raise BadInput(f"--set {override}: the value is not valid YAML: {error}") from error


def explain(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """One sentence per problem, with a suggestion for a misspelt key."""
    sentences = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"]) or "the configuration"
        if problem["type"] == "extra_forbidden":
            known = _keys_beside(root, problem["loc"])
            close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
            hint = f", did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
            sentences.append(f"{place} is not a known key{hint}")
        elif problem["type"] == "missing":
            sentences.append(f"{place} is required")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            given = problem["input"]
            sentences.append(f"{place}: {message[0].lower()}{message[1:]} (got {given!r})")
    return sentences


def _keys_beside(root: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The known keys of the section in which the unknown key at `location` stands."""
    section: Any = root
    for part in location[:-1]:
        fields = getattr(section, "model_fields", {})
        if part in fields:
            section = fields[part].annotation
            arguments = getattr(section, "__args__", ())
            sections = [a for a in arguments if hasattr(a, "model_fields")]
            section = sections[0] if sections else section
    return sorted(getattr(section, "model_fields", {}))
