"""The nightly flow: what is trained, when it may replace what is published, what is published."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from models.config.evaluation import parse_metric
from models.config.section import NOT_IDENTITY, Section
from models.config.split import Split


class NightlySplit(Split):
    """As `Split`, with the defaults of a data set that grows."""

    strategy: Literal["random", "leave-one-out", "temporal", "files"] = Field(
        "temporal", description="temporal or leave-one-out: what is newest is held out."
    )
    short_histories: Literal["error", "train", "drop"] = Field(
        "train",
        description="Users with fewer than three interactions, as new ones are: keep them in "
        "train only, drop them, or stop.",
    )


class Nightly(Section):
    """One challenger a night, the rule that it has to pass, and the published set."""

    model: str | None = Field(
        None, description="Which of `models` is published; empty means the first."
    )
    arm: Literal["baseline", "transfer"] = Field(
        "transfer", description="With or without the profiles' knowledge."
    )
    seed: int = Field(1, description="Of the training.")
    split: NightlySplit = Field(
        NightlySplit(),
        description="How the nightly flow divides the interactions, whatever the section `split` "
        "says for comparisons. temporal: the newest of all are the holdout that both models are "
        "judged on; leave-one-out: each user's newest.",
    )
    metric: str | None = Field(
        None, description="METRIC@K that decides; empty means evaluation.primary."
    )
    tolerance: float = Field(
        0.01,
        ge=0,
        description="How far below the champion the interval of the difference may reach, in the "
        "metric's own unit. An equally good model passes only if the interval is narrower than "
        "that, so it depends on how many users are judged: about 3 standard errors of the "
        "difference let it pass four times in five. 0 publishes what is proven to be better, and "
        "nothing else.",
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of that interval, two-sided.")
    min_new_interactions: int = Field(
        100,
        ge=0,
        description="With fewer than this since the last challenger, the night ends as skipped: "
        "no profile is asked for and nothing is trained. 0 trains in any case.",
        json_schema_extra=NOT_IDENTITY,
    )
    start: Literal["cold", "warm"] = Field(
        "cold",
        description="cold: fresh weights, as the champion had; warm: the champion's weights, users "
        "and items matched by raw id.",
    )
    k: int = Field(10, ge=1, description="Length of the published lists.")
    keep_versions: int = Field(
        5,
        ge=2,
        description="How many published versions stay; the current one and the one that "
        "`llmkt champion rollback` returns to always do.",
        json_schema_extra=NOT_IDENTITY,
    )
    incoming: str | None = Field(
        None,
        description="Folder of the drops (csv, parquet, inter); empty means incoming/ in the data "
        "folder.",
        json_schema_extra=NOT_IDENTITY,  # its content decides, see tasks/dataset/incoming_task.py
    )
    settle_seconds: float = Field(
        60.0,
        ge=0,
        description="A drop that was written to more recently may be unfinished: it waits for the "
        "next night.",
        json_schema_extra=NOT_IDENTITY,
    )

    @field_validator("metric")
    @classmethod
    def _metric_has_a_cut_off(cls, value: str | None) -> str | None:
        if value is not None and parse_metric(value)[1] is None:
            raise ValueError("the nightly flow publishes rankings; a metric METRIC@K is needed")
        return value

    @model_validator(mode="after")
    def _the_holdout_is_new_every_night(self) -> Self:
        if self.split.strategy not in ("temporal", "leave-one-out"):
            raise ValueError(
                f"split.strategy {self.split.strategy} does not hold out what is newest: the "
                "champion may have learnt from it; use temporal or leave-one-out"
            )
        return self
