"""Transfer, models, budget and evaluation."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from models.config.arms import ARMS, BASELINE, TRANSFER, Arm, ArmName
from models.config.evaluation import parse_metric
from models.config.section import Placed, Section, Seed, Side, unkeyed
from models.config.transfer import Tap, Transfer


def _of_transfer(given: dict[str, Any]) -> dict[str, Any]:
    Transfer.model_validate(given)
    return given


class Model(Section):
    """One model of the run."""

    hyperparameters: dict[str, Any] = Field(
        default_factory=dict,
        description="By RecBole's names, or an own module's arguments; unknown ones are errors.",
    )
    loader: Literal["pairwise", "pointwise", "users"] | None = Field(
        None, description="Your own torch module only: what its batches hold; empty: its class's."
    )
    tap: Tap | None = Field(None, description="Layer to align for users; empty: the default.")
    item_tap: Tap | None = Field(None, description="Layer to align for items; keys as `tap`.")
    transfer: Annotated[dict[str, Any], AfterValidator(_of_transfer)] = Field(
        default_factory=dict, description="Values of the section `transfer` for this model only."
    )
    arms: tuple[ArmName, ...] | None = Field(
        None, description="Those of training.arms that this model has. Empty: all."
    )
    seeds: tuple[Seed, ...] | None = Field(
        None, description="Those of training.seeds that this model has, if it is slow. Empty: all."
    )

    rankings: str | None = unkeyed(  # their content decides
        None,
        min_length=1,
        description="Nothing is trained: files of rankings made elsewhere, one per seed in the "
        "order of their names, such as runs/*.parquet; {split.seed} stands for the split's. See "
        "docs/own.md.",
    )

    @model_validator(mode="after")
    def _rankings_stand_alone(self) -> Self:
        others = self.model_dump(exclude_defaults=True).keys() - {"rankings", "seeds"}
        if self.rankings is not None and others:
            raise ValueError(
                f"with rankings, nothing is trained here. Leave out {', '.join(sorted(others))}"
            )
        return self

    @property
    def given(self) -> dict[str, Any]:
        """The hyper-parameters, with the loader, which is one."""
        return self.hyperparameters | ({"loader": self.loader} if self.loader else {})

    def tap_of(self, side: Side) -> Tap | None:
        """The configured tap of a side, None for the model's default."""
        return self.tap if side == "users" else self.item_tap


Precision = Literal["float32", "bfloat16"]


class Budget(Placed):
    """What a training may spend, the same for every arm."""

    epochs: int = Field(30, ge=1, description="Total epochs, both phases together.")
    patience: int = Field(
        5,
        ge=1,
        description="Stop after this many epochs without a better validation score. Counting "
        "starts with the second half of the epochs, in every arm.",
    )
    valid_metric: str = Field("ndcg@10", description="Metric of early stopping.")
    validation_users: int = Field(
        20_000,
        ge=100,
        description="Most users that are ranked after an epoch: with more, a sample, the same in "
        "every arm. At the end all users are ranked.",
    )
    threads: int = unkeyed(1, ge=1, le=1024, description="CPU threads per training.")
    precision: Precision | Literal["auto"] = Field(
        "float32",
        description="bfloat16: mixed precision while a model's own loss is computed, where the "
        "model allows it; weights, alignment and rankings stay float32. auto: bfloat16 on a GPU "
        "that has it, else float32.",
    )

    @field_validator("valid_metric")
    @classmethod
    def _metric_at_k(cls, value: str) -> str:
        parse_metric(value)
        return value


class Training(Budget):
    """The budget, and which trainings are made with it."""

    seeds: tuple[Seed, ...] = Field(
        (1, 2), min_length=1, description="Seeds of each model and arm."
    )
    arms: tuple[ArmName, ...] = Field(
        (BASELINE, TRANSFER),
        min_length=1,
        description="baseline: no profiles; transfer: with profiles; kar: profiles as features; "
        "llm-cf: as thoughts of examples; the others are controls.",
    )
    transfer_epochs: int | None = Field(
        None,
        ge=1,
        description="Total epochs of every arm but the baseline; empty: as `epochs`. Arms with "
        "different budgets are shown as not comparable.",
    )
    workers: int = unkeyed(2, ge=1, le=1024, description="Number of trainings at the same time.")

    @field_validator("seeds", "arms")
    @classmethod
    def _no_repeats(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            raise ValueError(f"each value may stand once, not {values}")
        return values

    @property
    def arm_rows(self) -> tuple[Arm, ...]:
        """The rows of `ARMS` that `arms` names."""
        return tuple(ARMS[name] for name in self.arms)

    def budget(self, arm: ArmName = BASELINE) -> Budget:
        """The part that decides the result of a single training of `arm`."""
        budget = Budget.model_validate(self.model_dump(include=set(Budget.model_fields)))
        if ARMS[arm].takes == "nothing" or self.transfer_epochs is None:
            return budget
        return budget.model_copy(update={"epochs": self.transfer_epochs})
