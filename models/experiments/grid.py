"""An experiment's points: combinations of settings, in a fixed order, each with a readable name."""

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.config import Experiment
from models.errors import BadInput

_LONGEST_VALUE = 40
_MOST_PARTS = 20


@dataclass(frozen=True)
class Point:
    """One combination.

    Attributes:
        name: unique in its experiment, such as `alpha=0.1 reduction=pca`.
        overrides: its own values by dotted key.
        settings: the whole pipeline's, not yet validated.
        excluded: why it is not run; None where it is.
    """

    name: str
    overrides: Mapping[str, Any]
    settings: Mapping[str, Any]
    excluded: str | None = None


def expand(experiment: Experiment, base: Mapping[str, Any]) -> list[Point]:
    """List all points: the grid, last axis fastest, then the named ones; `base` if none are given.

    Raises:
        BadInput: for a grid of more than `max_points`, an exclusion that fits no point, a name or a
            combination that occurs twice, or a key through a value that is no section.
    """
    _require_few(experiment)
    common = _common(experiment, base)
    points = []
    used: set[int] = set()
    for name, overrides in _combinations(experiment):
        settings = _over(common, overrides, f"point {name}")
        excluded = None
        if name not in experiment.points:
            fits = [
                place
                for place, values in enumerate(experiment.exclude)
                if all(value_at(settings, key) == value for key, value in values.items())
            ]
            used.update(fits)
            if fits:
                excluded = f"exclude: {_written(experiment.exclude[fits[0]])}"
        points.append(Point(name, overrides, settings, excluded))
    for place, values in enumerate(experiment.exclude):
        if place not in used:
            raise BadInput(f"exclude: no point of the grid has {_written(values)}. Correct it.")
    _require_different_names(points)
    return points


def _require_few(experiment: Experiment) -> None:
    sizes = {key: len(values) for key, values in experiment.grid.items()}
    count = (math.prod(sizes.values()) if sizes else 0) + len(experiment.points)
    if count > experiment.max_points:
        sizes |= {"named points": len(experiment.points)} if experiment.points else {}
        said = [f"{key} {size}" for key, size in sizes.items()]
        raise BadInput(
            f"the grid has {count} points ({', '.join(said)}; before exclusions), more than "
            f"max_points, {experiment.max_points}. Leave values out, or raise max_points."
        )


def _common(experiment: Experiment, base: Mapping[str, Any]) -> dict[str, Any]:
    """The base with what holds for all points."""
    shortcuts: dict[str, Any] = {"experiment": experiment.experiment}
    if experiment.arms is not None:
        shortcuts["training.arms"] = list(experiment.arms)
    if experiment.seeds is not None:
        shortcuts["training.seeds"] = list(experiment.seeds)
    common = _over(_over(base, shortcuts, "base"), experiment.overrides, "overrides")
    if experiment.models is not None:
        known = common.get("models") or {}
        absent = [model for model in experiment.models if model not in known]
        if absent:
            raise BadInput(
                f"models: the base has no {', '.join(absent)}. Set some of {', '.join(known)}."
            )
        common["models"] = {model: known[model] for model in experiment.models}
    return common


def _combinations(experiment: Experiment) -> Iterator[tuple[str, dict[str, Any]]]:
    axes = experiment.grid
    for values in itertools.product(*axes.values()) if axes else ():
        overrides = dict(zip(axes, values, strict=True))
        yield name_of(overrides), overrides
    yield from experiment.points.items()
    if not axes and not experiment.points:
        yield "base", {}


def name_of(overrides: Mapping[str, Any]) -> str:
    """Name a combination of values by dotted key: `alpha=0.1 reduction=pca`."""
    names = _short(list(overrides))
    return " ".join(f"{names[key]}={_value(value)}" for key, value in overrides.items())


def _short(keys: Sequence[str]) -> dict[str, str]:
    """Each key's last parts, as few as tell the keys apart."""
    parts = {key: parts_of(key) for key in keys}
    lengths = dict.fromkeys(keys, 1)
    while True:
        names = {key: ".".join(parts[key][-lengths[key] :]) for key in keys}
        seen = Counter(names.values())
        unclear = [key for key in keys if seen[names[key]] > 1 and lengths[key] < len(parts[key])]
        if not unclear:
            return names
        for key in unclear:
            lengths[key] += 1


def _value(value: Any) -> str:
    """A value in a name: a tap stands by its name."""
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        slice_ = [str(value.get(end, "")) for end in ("start", "stop")]
        return f"{value['name']}[{':'.join(slice_)}]" if any(slice_) else str(value["name"])
    if isinstance(value, str):
        return value
    text = json.dumps(value, separators=(",", ":"), default=str)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _require_different_names(points: Sequence[Point]) -> None:
    for name, count in Counter(point.name for point in points).items():
        if count > 1:
            raise BadInput(
                f"{count} points are called {name}. Remove a value that stands twice, or give "
                "them names under points."
            )


def _over(settings: Mapping[str, Any], overrides: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A copy of the settings with others over them."""
    result = json.loads(json.dumps(settings, default=str))
    for key, value in overrides.items():
        try:
            set_at(result, key, value)
        except ValueError as error:
            raise BadInput(f"{where}: {error}") from error
    return dict(result)


def parts_of(key: str) -> list[str]:
    """Split a dotted key; a model's import path, which has dots of its own, is one part."""
    path = re.fullmatch(r"models\.([^:]+:\w+)(\.(.*))?", key)
    if path is None:
        return key.split(".")
    return ["models", path[1], *(path[3].split(".") if path[2] else ())]


def set_at(settings: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted key, making sections; ValueError if the key leads through a value."""
    parts = parts_of(key)
    if not all(parts) or len(parts) > _MOST_PARTS:
        raise ValueError(f"{key[:_LONGEST_VALUE]!r} is not a dotted key")
    section = settings
    for part in parts[:-1]:
        if section.get(part) is None:
            section[part] = {}
        section = section[part]
        if not isinstance(section, dict):
            raise ValueError(f"{key}: {part} is a value, not a section")
    section[parts[-1]] = value


def value_at(settings: Mapping[str, Any], key: str) -> Any:
    """Look up a dotted key; None where there is no value."""
    found: Any = settings
    for part in parts_of(key):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two trees of settings; of two values the upper one wins."""
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        result[key] = merged(under, value) if both else value  # type: ignore[arg-type]
    return result


def _written(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_value(value)}" for key, value in values.items())
