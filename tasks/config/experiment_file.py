"""One experiment file in, validated points out, with errors that name file, point and key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.config import ArmName, Experiment, Pipeline
from models.errors import BadInput, cut
from models.experiments.grid import Point, expand, name_of, set_at
from tasks.config.pipeline_file import layer, require_claims, validated
from tasks.config.yaml_settings import apply, parse_override, read_settings, validate
from tasks.storage.artifacts import PROJECT_ROOT

_DOTTED = ("overrides", "grid", "search.space")
"""Sections whose keys are dotted keys of a pipeline."""


@dataclass(frozen=True)
class ExperimentPoint:
    """A point that will be run.

    Attributes:
        file: the experiment's.
        point: its settings as written.
        pipeline: the same, validated.
    """

    file: Path
    point: Point
    pipeline: Pipeline

    @property
    def name(self) -> str:
        """Unique in the experiment."""
        return self.point.name

    @property
    def where(self) -> str:
        """The file and the point, for errors."""
        return f"{self.file}, point {self.name}"

    def varied(
        self, model: str, arm: ArmName, params: Mapping[str, Any], **training: Any
    ) -> Pipeline:
        """The pipeline of one model and arm alone, with `params` at dotted keys.

        `training` has other values of the section of that name. BadInput if they make no pipeline.
        """
        settings: dict[str, Any] = self.pipeline.model_dump(mode="json")
        # As written, so that a prompt's own settings stay below: see
        # `tasks.config.pipeline_file.load`.
        for section in ("profiles", "item_profiles"):
            settings[section] = self.point.settings.get(section) or {}
        settings["preset"] = self.point.settings.get("preset")
        for key, value in params.items():
            set_at(settings, key, value)
        settings["models"] = {model: settings["models"][model]}
        settings["training"] |= {"arms": [arm], **training}
        return validated(settings, f"{self.where}, {model} {arm}")


@dataclass(frozen=True)
class LoadedExperiment:
    """An experiment file and its points."""

    file: Path
    config: Experiment
    points: tuple[ExperimentPoint, ...]
    excluded: tuple[Point, ...]

    @property
    def name(self) -> str:
        """The experiment's."""
        return self.config.experiment

    @property
    def workers(self) -> int:
        """Trainings at the same time, if nobody says: the most that a point asks for."""
        return max(chosen.pipeline.training.workers for chosen in self.points)

    @property
    def pools(self) -> dict[str, str | None]:
        """Each point's name in comparisons: points that differ in `split.seed` alone share one.

        They are replicates. The name is None where nothing else tells points apart.
        """
        alike: dict[str, list[Point]] = {}
        for chosen in self.points:
            split = chosen.pipeline.split.model_copy(update={"seed": 0})
            same = chosen.pipeline.model_copy(update={"split": split})
            key = same.model_dump_json(exclude={"preset"})
            alike.setdefault(key, []).append(chosen.point)
        names: dict[str, str | None] = {}
        for points in alike.values():
            given = points[0].overrides
            rest = {key: given[key] for key in given if key not in ("split", "split.seed")}
            pool = name_of(rest) or None
            if len(points) == 1 or (pool in names.values()):
                pool = ", ".join(point.name for point in points)
            names |= dict.fromkeys([point.name for point in points], pool)
        return names


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> LoadedExperiment:
    """Read an experiment file and validate every point of it.

    `overrides` are `dotted.key=value` texts: of the file's own settings (`max_points=500`,
    `grid.transfer.alpha=[0.1]`), or of all pipelines (`training.epochs=5`).

    Raises:
        BadInput: for a missing or malformed file, and for every unknown key and wrong value in it
            or in a point's pipeline.
    """
    raw = read_settings(path, "experiment file")
    if "base" not in raw and "dataset" in raw:
        raise BadInput(f"{path}: this is a pipeline, not an experiment. Use llmkt run {path}")
    raw.setdefault("experiment", path.stem)
    for override in overrides:
        _apply(raw, override)
    try:
        config = validate(Experiment, raw)
        base = _base(path, config.base)
        config = _sized(config, base)
        points = expand(config, base)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    chosen = tuple(
        ExperimentPoint(path, point, validated(point.settings, f"{path}, point {point.name}"))
        for point in points
        if not point.excluded
    )
    if not chosen:
        raise BadInput(f"{path}: every point is excluded. Remove an exclusion")
    _require_different(path, chosen)
    loaded = LoadedExperiment(
        path, config, chosen, tuple(point for point in points if point.excluded)
    )
    names = [name for name in dict.fromkeys(loaded.pools.values()) if name]
    require_claims(path, [point.pipeline for point in chosen], names)
    return loaded


def _sized(config: Experiment, base: Mapping[str, Any]) -> Experiment:
    """Set the trials of a search by the size of its pipelines, unless the file sets them."""
    if config.search is None or "trials" in config.search.model_fields_set:
        return config
    size = config.overrides.get("size") or base.get("size") or "default"
    search = config.search.model_copy(update=layer("size", size).get("search", {}))
    return config.model_copy(update={"search": search})


def _base(path: Path, base: str | dict[str, Any]) -> dict[str, Any]:
    if not isinstance(base, str):
        return base
    given = Path(base).expanduser()
    places = [path.parent / given, given, PROJECT_ROOT / given]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise BadInput(f"base: there is no file {places[0]}. Correct the path")
    return read_settings(found)


def _apply(raw: dict[str, Any], override: str) -> None:
    """Put an override where it belongs: a section of dotted keys, the file, or all points."""
    key, value = parse_override(override)
    for section in _DOTTED:
        if key.startswith(f"{section}."):
            holder = raw
            for part in section.split("."):
                if holder.get(part) is None:
                    holder[part] = {}
                holder = holder[part]
                if not isinstance(holder, dict):
                    raise BadInput(f"--set {cut(override)}: {part} is a value, not a section")
            holder[key.removeprefix(f"{section}.")] = value
            return
    head = key.split(".")[0]
    if head in Experiment.model_fields and not key.startswith("models."):
        apply(raw, override)
        return
    grid = raw.get("grid")
    if isinstance(grid, dict) and key in grid:
        raise BadInput(
            f"--set {cut(override)}: {key} is an axis of the grid. Set grid.{key} to a list "
            "of values"
        )
    if (key, value) == ("size", "quick") and isinstance(raw.get("quick"), dict):
        raw.update(raw["quick"])
    _apply(raw, f"overrides.{override.lstrip()}")


def _require_different(path: Path, points: Sequence[ExperimentPoint]) -> None:
    """Refuse points that differ in how they are written, but not in what they mean."""
    seen: dict[str, str] = {}
    for point in points:
        same = seen.setdefault(point.pipeline.model_dump_json(exclude={"preset"}), point.name)
        if same != point.name:
            raise BadInput(
                f"{path}: points {same} and {point.name} come to the same pipeline. Remove one"
            )
