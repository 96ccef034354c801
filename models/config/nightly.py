"""The nightly flow: what is trained, when it may replace what is published, what is published."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from models.config.arms import TRANSFER, ServedArm
from models.config.evaluation import parse_metric
from models.config.section import Section, Seed, unkeyed
from models.config.split import Split


class NightlySplit(Split):
    """As the section `split`, with defaults for a growing data set."""

    strategy: Literal["random", "leave-one-out", "temporal", "files"] = Field(
        "temporal", description="temporal or leave-one-out: the newest interactions are held out."
    )
    short_histories: Literal["error", "train", "drop"] = Field(
        "train",
        description="Users with fewer than 3 interactions, such as new ones: stop, keep them in "
        "train only, or drop them.",
    )


def _limit(default: float | None, words: str, least: float = 0.0) -> Any:
    return Field(default, ge=least, description=f"{words}; empty: not checked.")


class Guardrails(Section):
    """What a challenger must keep beside the deciding metric."""

    served_drop: float | None = _limit(
        0.02, "Largest fall of the share of users whose list is the model's own"
    )
    coverage: float | None = _limit(0.5, "Least coverage of the catalogue, in the champion's")
    tail_share: float | None = _limit(0.5, "Least share of places for unpopular items, likewise")
    overlap: float | None = _limit(0.1, "Least share of a list that was in it before")
    drift: float | None = _limit(5.0, "Most profile drift, in medians of the nights before", 1.0)
    volume: float | None = _limit(10.0, "Most, or 1 by it fewest, new interactions, likewise", 1.0)
    anchor: float | None = Field(
        None,
        ge=0,
        description="How far the interval of the difference to the anchor, the first version or "
        "the last approved one, may reach below 0; empty: twice nightly.tolerance.",
    )
    on_breach: Literal["needs approval", "kept"] = Field(
        "needs approval",
        description="Write the version for `llmkt champion approve`, or keep the champion.",
    )


class Measured(Section):
    """What knowledge adds on some nights; no decision depends on it."""

    every: int = Field(
        7,
        ge=0,
        description="Also train each n-th challenger without and with shuffled texts; 0: never.",
    )
    at_least: float = Field(
        0.0,
        description="Alarm where the interval over these nights is below this (metric's unit).",
    )


class Sink(Section):
    """Where the lists go once their version is current."""

    kind: Literal["redis", "qdrant", "mlflow", "tensorboard", "wandb", "command"] = Field(
        description="A Redis database, a server of Qdrant, MLflow or Weights & Biases, a folder of "
        "TensorBoard, or a program.",
    )
    url: str | None = Field(
        None, description="redis://HOST:PORT/DB, http://HOST:PORT, or a folder."
    )
    password_env: str | None = Field(
        None,
        description="Environment variable with the password, key or token of such a server.",
    )
    command: tuple[str, ...] = Field(
        (), description="command only: program and arguments; the version's folder is added."
    )
    seconds: float = unkeyed(600.0, gt=0, description="Give up after this time.")

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        key = "command" if self.kind == "command" else "url"
        if not getattr(self, key):
            raise ValueError(f"a sink of kind {self.kind} needs {key}. Set it.")
        return self


class Nightly(Section):
    """The nightly challenger, the gate that it has to pass, and the published set."""

    model: str | None = Field(None, description="Which of `models` to publish; empty: the first.")
    arm: ServedArm = Field(TRANSFER, description="Arm of the published model.")
    seed: Seed = Field(1, description="Of the training.")
    split: NightlySplit = Field(
        NightlySplit(),
        description="The split of the nightly flow, whatever `split` says. temporal: the newest "
        "interactions of all users are the holdout; leave-one-out: the newest of each user.",
    )
    metric: str | None = Field(None, description="METRIC@K of the gate; empty: evaluation.primary.")
    tolerance: float = Field(
        0.01,
        ge=0,
        description="The challenger is published if the lower end of the interval of the "
        "difference is at least minus this, in the metric's unit. About 3 standard errors of the "
        "difference let an equally good model pass four times in five. 0 publishes only what is "
        "significantly better.",
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of that interval, two-sided.")
    min_new_interactions: int = unkeyed(
        100,
        ge=0,
        description="Skip the night if fewer interactions are new since the last challenger: no "
        "LLM is asked and nothing is trained. 0: never skip.",
    )
    start: Literal["cold", "warm"] = Field(
        "cold",
        description="cold: fresh weights; warm: the weights of the champion, with users and items "
        "matched by raw id.",
    )
    serve_from: Literal["all", "judged"] = unkeyed(
        "all",
        description="all: a challenger that passes is trained on all interactions with the judged "
        "settings, and then published; judged: it is published as it was judged.",
    )
    guardrails: Guardrails = unkeyed(Guardrails())
    knowledge: Measured = unkeyed(Measured())
    sinks: tuple[Sink, ...] = unkeyed(
        (), description="Where the lists go after a publication, beside data/published/."
    )
    quarantine_alert: float = unkeyed(
        0.1, ge=0, le=1, description="Share of a night's new rows whose refusal is an alert."
    )
    k: int = Field(10, ge=1, description="Length of the published lists.")
    keep_versions: int = unkeyed(
        5,
        ge=2,
        description="How many published versions to keep. The current one and the target of `llmkt "
        "champion rollback` always stay.",
    )
    incoming: str | None = unkeyed(  # its content decides, see tasks/dataset/incoming_task.py
        None,
        description="Folder of new interactions (csv, parquet, inter); empty: incoming/ in the "
        "data folder.",
    )
    settle_seconds: float = unkeyed(
        60.0,
        ge=0,
        le=1e6,
        description="Leave a file that changed within this time to the next night: it may be "
        "unfinished.",
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
