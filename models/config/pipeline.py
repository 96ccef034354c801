"""One configuration file: one pipeline; and the single trainings that it asks for."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from models.config.data import Dataset, Split
from models.config.knowledge import Embeddings, Profiles, Targets
from models.config.section import Section
from models.config.training import (
    BRIDGING,
    Arm,
    Budget,
    Evaluation,
    Model,
    Tap,
    Training,
    Transfer,
    parse_metric,
)


class Pipeline(Section):
    """One configuration file: one pipeline, one comparison."""

    experiment: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    dataset: Dataset = Dataset()
    split: Split = Split()
    profiles: Profiles = Profiles()
    embeddings: Embeddings = Embeddings()
    targets: Targets = Targets()
    models: dict[str, Model] = Field(min_length=1, description="By RecBole's model names.")
    transfer: Transfer = Transfer()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _metrics_are_computed(self) -> Self:
        for key, value in (
            ("training.valid_metric", self.training.valid_metric),
            ("evaluation.primary", self.evaluation.primary),
        ):
            name, k = parse_metric(value)
            if name not in self.evaluation.metrics or k not in self.evaluation.k:
                raise ValueError(
                    f"{key} is {value}, but evaluation.metrics and evaluation.k do not compute it"
                )
        return self

    @model_validator(mode="after")
    def _transfer_overrides_are_valid(self) -> Self:
        for name in self.models:
            self.transfer_of(name)
        return self

    def jobs(self, taps: Mapping[str, Tap | None]) -> "list[Job]":
        """All trainings; a model without a tap has its baseline alone."""
        return [
            Job.of(self, model, arm, seed, tap)
            for model, tap in taps.items()
            for arm in self.training.arms
            for seed in self.training.seeds
            if tap is not None or arm == "baseline"
        ]

    def targets_of(self, model: str) -> Targets:
        """The `targets` section as it holds for `model`, its reduction settled."""
        bridging = self.transfer_of(model).alignment in BRIDGING
        reduction = self.targets.reduction or ("none" if bridging else "umap")
        return self.targets.model_copy(update={"reduction": reduction})

    def transfer_of(self, model: str) -> Transfer:
        """The `transfer` section as it holds for `model`, its overrides applied."""
        overrides = self.models[model].transfer
        return Transfer.model_validate(self.transfer.model_dump() | overrides)


class Job(Section):
    """One training: everything that decides its result but the data.

    A baseline has neither transfer nor tap, and so stays cached when those change.
    """

    model: str
    arm: Arm
    seed: int
    hyperparameters: dict[str, Any]
    transfer: Transfer | None
    tap: Tap | None
    budget: Budget
    k: int = Field(description="Length of the rankings.")

    @classmethod
    def of(cls, pipeline: Pipeline, model: str, arm: Arm, seed: int, tap: Tap | None) -> Self:
        """The job of one model, arm and seed of a pipeline."""
        knowing = arm != "baseline"
        return cls(
            model=model,
            arm=arm,
            seed=seed,
            hyperparameters=pipeline.models[model].hyperparameters,
            transfer=pipeline.transfer_of(model) if knowing else None,
            tap=tap if knowing else None,
            budget=pipeline.training.budget(),
            k=max(pipeline.evaluation.k),
        )
