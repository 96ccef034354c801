"""One experiment file: a base pipeline, and the grid of points that is made of it."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from models.config.arms import ArmName
from models.config.plugins import load
from models.config.section import Name, Section, Seed, unkeyed

Overrides = dict[str, Any]
"""Values by dotted key, as in `--set`."""
_FIXED = ("experiment", "size", "evaluation", "runner", "dask")
"""What all points share, since they are judged, and run, as one."""
_NOT_SEARCHED = (*_FIXED, "dataset", "split", "training", "preset")
"""What a search must not change: a setting is chosen on one validation part, on equal terms."""


class Space(Section):
    """The values of one key that a search may try: a range, or choices."""

    low: int | float | None = Field(None, description="Lowest value, with high.")
    high: int | float | None = Field(None, description="Highest value.")
    log: bool = Field(False, description="Draw on a logarithmic scale; low must be above 0.")
    step: int | float | None = Field(None, gt=0, description="Step between values; not with log.")
    choices: list[Any] | None = Field(
        None, min_length=1, description="Values, in place of a range."
    )

    @model_validator(mode="after")
    def _is_a_range_or_choices(self) -> Self:
        if self.choices is not None:
            if (self.low, self.high, self.step, self.log) != (None, None, None, False):
                raise ValueError("choices stand alone, without low, high, log and step")
            return self
        if self.low is None or self.high is None:
            raise ValueError("needs low and high, or choices")
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0 and no step")
        return self

    @property
    def whole(self) -> bool:
        """Whether the range is of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


class Search(Section):
    """Hyper-parameter search on validation, with equal trials for every arm.

    The first trial has the model's own settings, the others of the first third are random, alike in
    all arms of a model, and the rest are Optuna's TPE.
    """

    trials: int = Field(20, ge=1, description="Trials of every model and arm.")
    seed: Seed = Field(1, description="Seed of the sampler, beside that of the split.")
    space: Annotated[dict[str, Space], BeforeValidator(load)] = Field(
        default_factory=dict,
        description="Range or choices by dotted key. models.NAME.hyperparameters.KEY applies to "
        "every arm of the model, any other key, such as transfer.alpha, to arms with knowledge. "
        "Empty: the spaces that ship with the models, without the keys that the grid or a point "
        "sets. An import path: your own mapping.",
    )
    pruning: Literal["none", "median"] = Field(
        "median",
        description="median: train for pruning_epochs first, and fully only if that score is no "
        "worse than the median of the trials before; the same rule for every arm.",
    )
    pruning_epochs: int = Field(5, ge=1, description="Epochs of the short training.")

    @field_validator("space")
    @classmethod
    def _equal_terms_stay_equal(cls, space: dict[str, Space]) -> dict[str, Space]:
        _refuse(space, _NOT_SEARCHED, "is the same for all trials: leave it out of the search")
        return space


class Experiment(Section):
    """An experiment file. Each point is a pipeline: base, overrides, then the point's own."""

    experiment: Name = Field(description="Name of the results; the file's name if left out.")
    base: str | dict[str, Any] = Field(
        description="A pipeline's file, relative to this one, or its keys."
    )
    overrides: Overrides = Field(
        default_factory=dict, description="Keys of all points, over the base."
    )
    grid: dict[str, list[Any]] = Field(
        default_factory=dict,
        description="Lists of values by dotted key; every combination is a point.",
    )
    points: dict[Annotated[str, Field(min_length=1, max_length=200)], Overrides] = Field(
        default_factory=dict, description="Further points by name, each with values by dotted key."
    )
    exclude: list[Overrides] = Field(
        default_factory=list,
        description="Grid points to leave out: those with all these values.",
    )
    models: tuple[str, ...] | None = Field(
        None, min_length=1, description="Models of the base to keep."
    )
    arms: tuple[ArmName, ...] | None = Field(
        None, min_length=1, description="Replaces training.arms."
    )
    seeds: tuple[Seed, ...] | None = Field(
        None, min_length=1, description="Replaces training.seeds."
    )
    quick: dict[str, Any] = Field(
        default_factory=dict,
        description="Keys in place of this file's own with `--set size=quick`, such as one split.",
    )
    max_points: int = unkeyed(
        200, ge=1, description="Refuse a grid with more points, before exclusions."
    )
    search: Search | None = Field(None, description="Hyper-parameter search; empty: none.")
    settings: dict[str, dict[ArmName, Overrides]] = Field(
        default_factory=dict,
        description="Values by dotted key of one model and arm, at every point that has it: what "
        "an earlier search chose, as `llmkt settings` prints it. A search leaves them alone.",
    )

    @field_validator("grid")
    @classmethod
    def _axes_have_values(cls, grid: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for key, values in grid.items():
            if not values:
                raise ValueError(f"{key} has no values")
        _refuse(grid, _FIXED, "is the same for all points")
        return grid

    @field_validator("points")
    @classmethod
    def _points_share_their_judge(cls, points: dict[str, Overrides]) -> dict[str, Overrides]:
        for overrides in points.values():
            _refuse(overrides, _FIXED, "is the same for all points")
        return points

    @model_validator(mode="after")
    def _axes_are_not_searched(self) -> Self:
        searched = set(self.search.space if self.search else ())
        both = sorted(searched.intersection(self.grid))
        if both:
            raise ValueError(f"{', '.join(both)}: an axis of the grid cannot be searched, too")
        for model, arms in self.settings.items():
            for arm, values in arms.items():
                _refuse(values, _NOT_SEARCHED, f"is the same for all arms, {model} {arm} included")
                both = sorted(searched.intersection(values))
                if both:
                    raise ValueError(f"{', '.join(both)}: settings of {model} {arm} hold it fixed")
        return self


def _refuse(keys: dict[str, Any], sections: tuple[str, ...], why: str) -> None:
    for key in keys:
        if key.split(".")[0] in sections:
            raise ValueError(f"{key} {why}")
