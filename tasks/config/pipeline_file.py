"""One YAML file in, one validated `Pipeline` out, with errors that name file, key and fix."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.config import Pipeline
from models.errors import BadInput, cut
from models.experiments.grid import merged
from models.recommenders.hyperparameters import hyperparameters
from tasks.config.prompt_file import SECTIONS, with_front_matter
from tasks.config.yaml_settings import apply, read_settings, validate
from tasks.execution.devices import placed
from tasks.storage.artifacts import PROJECT_ROOT

_LAYERS = {key: PROJECT_ROOT / "configs" / f"{key}s" for key in ("preset", "size")}
"""Folders of settings that go below those of a file, the higher layer first."""


def load(path: Path, overrides: Sequence[str] = ()) -> Pipeline:
    """Read a pipeline configuration.

    Values come from, the first that has one: overrides (`dotted.key=value` texts, the value in
    YAML), the file, its preset, its size, where an LLM writes profiles the front matter of the
    prompt, the defaults.

    Raises:
        BadInput: for a missing or malformed file and for every unknown key or wrong value, in a
            prompt's front matter too.
    """
    raw = read_settings(path)
    for override in overrides:
        apply(raw, override)
    pipeline = validated(raw, str(path))
    require_claims(path, [pipeline])
    return pipeline


def require_claims(path: Path, pipelines: Sequence[Pipeline], points: Sequence[str] = ()) -> None:
    """Refuse claims about a model, control or point that is not there, naming what there is."""
    models = dict.fromkeys(model for pipeline in pipelines for model in pipeline.models)
    arms = dict.fromkeys(arm for pipeline in pipelines for arm in pipeline.training.arms)
    problem = pipelines[0].evaluation.claims.problem(models, arms, points)
    if problem:
        raise BadInput(f"{path}: {problem}")


def given(config: Pipeline | Path, overrides: Sequence[str] = ()) -> Pipeline:
    """The pipeline that a flow was called with, for this machine; see `load`."""
    return placed(config) if isinstance(config, Pipeline) else load(config, overrides)


def validated(raw: Mapping[str, Any], where: str) -> Pipeline:
    """Validate settings, with their preset, their size and their prompts' settings below them.

    Its devices are those of this machine, see `tasks.execution.devices.placed`. Errors, as those of
    `load`, name in front of the key `where`: the file, and perhaps a point in it.
    """
    try:
        pipeline = validate(Pipeline, _layered(raw))
        for name in pipeline.trained_here:
            hyperparameters(name, pipeline.models[name].given)
        profiles = {
            section: with_front_matter(pipeline.profiles_of(side), side)
            for side, section in SECTIONS.items()
        }
        return placed(pipeline.model_copy(update=profiles))
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error


def _layered(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Put settings over those of their preset, and both over those of their size."""
    settings = raw
    for key in _LAYERS:
        if raw.get(key):
            below = layer(key, raw[key])
            below.pop("search", None)  # of experiments, see `tasks.config.experiment_file`
            if "models" in settings:
                below.pop("models", None)
            settings = merged(below, settings)
    return settings


def layer(key: str, name: object) -> dict[str, Any]:
    """Read what a preset or size (`key`) of this name stands for; BadInput lists what there is."""
    known = sorted(file.stem for file in _LAYERS[key].glob("*.yaml"))
    if name not in known:
        raise BadInput(f"{key}: there is no {cut(str(name))}. Choose one of {', '.join(known)}")
    return read_settings(_LAYERS[key] / f"{name}.yaml", key)
