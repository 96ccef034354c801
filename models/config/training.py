"""Transfer, models, budget and evaluation."""

import re
from typing import Annotated, Any, Literal, Self, cast, get_args

from pydantic import Field, field_validator, model_validator

from models.config.device import Placed
from models.config.section import IDENTITY_IF_SET, NOT_IDENTITY, Section

RankingMetric = Literal["ndcg", "recall", "hit", "precision", "mrr", "map"]
ClickMetric = Literal["auc", "logloss"]
Metric = RankingMetric | ClickMetric
Control = Literal["shuffled", "shuffled-items", "noise", "genre-histogram", "history-svd"]
Arm = Literal["baseline", "transfer", "kar"] | Control
Side = Literal["users", "items"]
SIDES: tuple[Side, ...] = get_args(Side)
CONTROLS: tuple[Control, ...] = get_args(Control)
CLICK_METRICS: tuple[ClickMetric, ...] = get_args(ClickMetric)
KAR_MODELS = ("DeepFM", "DCN", "AutoInt")
"""Models that the arm kar exists for."""


def parse_metric(text: str) -> tuple[Metric, int | None]:
    """Split `ndcg@10` into `("ndcg", 10)`; `auc` and `logloss` have no cut-off.

    Raises:
        ValueError: if the text is neither, or not METRIC@K with a known metric and K from 1.
    """
    if text in CLICK_METRICS:
        return cast(Metric, text), None
    names = get_args(RankingMetric)
    match = re.fullmatch(r"([a-z]+)@([1-9][0-9]*)", text)
    if match is None or match[1] not in names:
        raise ValueError(
            f"{text!r} is not METRIC@K with METRIC one of {', '.join(names)}, nor auc or logloss"
        )
    return cast(Metric, match[1]), int(match[2])


Phase = Literal["transfer", "finetune"]


class Freeze(Section):
    """Layers held still in a phase: parameter names or globs, e.g. `item_embedding.*`."""

    transfer: tuple[str, ...] = ()
    finetune: tuple[str, ...] = ()


Alignment = Literal[
    "rmse", "mse", "cosine", "contrastive", "generative", "linear", "relational", "init"
]
BRIDGING: frozenset[Alignment] = frozenset({"contrastive", "generative", "linear", "relational"})
"""Alignments for which layer and target need not be equally wide."""


class Transfer(Section):
    """The knowledge-transfer settings (LLM-KT, arXiv 2411.00556, section 3)."""

    alignment: Alignment = Field(
        "rmse",
        description="rmse (as published), mse, cosine: the layer resembles the target; "
        "contrastive, generative: RLMRec's two losses; linear: a learned head from the layer to "
        "the whole embedding; relational: pairs are as similar as their profiles are; init: the "
        "embedding starts from the target and is trained plainly.",
    )
    side: Side | Literal["both"] = Field("users", description="Whose profiles are transferred.")
    alpha: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="Weight of the reconstruction loss: (1-alpha)·model + alpha·transfer."
    )
    balance: Literal["gradient", "none"] = Field(
        "gradient",
        description="gradient: the transfer loss is rescaled so that alpha is its share of the "
        "gradient at the tap, whatever the size of the model's loss; none: the published sum.",
    )
    schedule: Literal["two-phase", "joint", "decay"] = Field(
        "two-phase",
        description="two-phase: half of the epochs joint, half fine-tuning on the model's own "
        "loss; joint: all epochs joint; decay: all joint while alpha falls to 0 in a line.",
    )
    scale: Literal["layer", "none"] | Annotated[float, Field(gt=0)] = Field(
        "layer",
        description="Scale of the targets for rmse, mse and init: layer: the tapped layer's own "
        "standard deviation in the first step; a number: that standard deviation; none: as in "
        "the file.",
    )
    temperature: Annotated[float, Field(gt=0)] = Field(
        0.2, description="contrastive only: InfoNCE's temperature."
    )
    mask: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="generative only: share of the tapped vector's columns that are hidden."
    )
    freeze: Freeze = Freeze()
    columns: int | None = Field(
        None,
        ge=1,
        description="Align only so many columns of the tapped layer, from its first (or the tap's "
        "start) on; empty means all. 2 is what the published code comes to: its UMAP returns two "
        "coordinates whatever the layer's width, and no other column gets a gradient.",
        json_schema_extra=IDENTITY_IF_SET,
    )

    @property
    def sides(self) -> tuple[Side, ...]:
        """`side` taken apart."""
        return SIDES if self.side == "both" else (self.side,)


class Tap(Section):
    """What is aligned: a module's output, a parameter, or a method's return value.

    `llmkt inspect MODEL` lists what a model has.
    """

    kind: Literal["module", "parameter", "method"] = "module"
    name: str = Field(description="Name inside the model, as `llmkt inspect MODEL` prints it.")
    output: int | None = Field(
        None, ge=0, description="Which element, where a module or method returns a tuple."
    )
    rows: Literal["batch", "all"] = Field(
        "batch",
        description="batch: one row per row of the batch, or per id that an embedding was asked "
        "for; all: one row per user (item) of the data set, as graph models return them.",
    )
    pool: Literal["mean", "last"] | None = Field(
        None,
        description="Where rows are sequences: their mean over the entries that are not padding, "
        "or their last entry.",
    )
    start: int | None = Field(None, ge=0, description="First column of the slice.")
    stop: Annotated[int, Field(ge=1)] | Literal["half"] | None = Field(
        None, description="One past the last column of the slice, or half of the width."
    )


class Model(Section):
    """One RecBole model of the run."""

    hyperparameters: dict[str, Any] = Field(
        default_factory=dict, description="By RecBole's names; an unknown one is an error."
    )
    tap: Tap | None = Field(None, description="Empty means the model's default tap for users.")
    item_tap: Tap | None = Field(None, description="Likewise for items.")
    transfer: dict[str, Any] = Field(
        default_factory=dict, description="Overrides of the `transfer` section for this model."
    )

    def tap_of(self, side: Side) -> Tap | None:
        """The configured tap of a side, None for the model's default."""
        return self.tap if side == "users" else self.item_tap


Precision = Literal["float32", "bfloat16"]


class Budget(Placed):
    """What a training may spend, the same for every arm."""

    epochs: int = Field(40, ge=1, description="Total epochs, both phases together.")
    patience: int = Field(
        6,
        ge=1,
        description="Stop after this many epochs without a better validation score, counted from "
        "the second half of the epochs on, in every arm alike.",
    )
    valid_metric: str = Field("ndcg@10", description="METRIC@K, auc or logloss for early stopping.")
    threads: int = Field(
        1, ge=1, description="CPU threads per training.", json_schema_extra=NOT_IDENTITY
    )
    precision: Precision | Literal["auto"] = Field(
        "float32",
        description="bfloat16: mixed precision while a model's own loss is computed, where the "
        "model allows it; weights, alignment and rankings stay float32. auto: bfloat16 on a GPU "
        "that has it, else float32.",
        json_schema_extra=IDENTITY_IF_SET,
    )

    @field_validator("valid_metric")
    @classmethod
    def _metric_at_k(cls, value: str) -> str:
        parse_metric(value)
        return value


class Training(Budget):
    """The budget, and which trainings are made with it."""

    seeds: tuple[int, ...] = Field((1, 2), min_length=1)
    arms: tuple[Arm, ...] = Field(("baseline", "transfer"), min_length=1)
    transfer_epochs: int | None = Field(
        None,
        ge=1,
        description="Total epochs of every arm but the baseline; empty means `epochs`, as equal "
        "terms demand. Arms with another number are shown as not comparable.",
        json_schema_extra=IDENTITY_IF_SET,
    )
    workers: int = Field(
        2, ge=1, description="Trainings at the same time.", json_schema_extra=NOT_IDENTITY
    )

    @field_validator("seeds", "arms")
    @classmethod
    def _no_repeats(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            raise ValueError(f"each value may stand once, not {values}")
        return values

    def budget(self, arm: Arm = "baseline") -> Budget:
        """The part that decides the result of a single training of `arm`."""
        budget = Budget.model_validate(self.model_dump(include=set(Budget.model_fields)))
        if arm == "baseline" or self.transfer_epochs is None:
            return budget
        return budget.model_copy(update={"epochs": self.transfer_epochs})


class Kar(Section):
    """The adaptor of the arm kar; see `models.kar`."""

    shared_experts: int = Field(2, ge=1, description="Experts for users and items alike.")
    own_experts: int = Field(2, ge=1, description="Experts of either.")
    hidden: int = Field(64, ge=1, description="Width between an expert's two layers.")


class Evaluation(Section):
    """Full-ranking metrics on valid and test, or AUC and LogLoss of predicted likes."""

    like_from: float | None = Field(
        None,
        description="Ratings from here on are likes, lower ones are not: context-aware models "
        "learn to tell them apart and are judged by auc and logloss. Empty: every interaction is "
        "positive, and the whole catalogue is ranked.",
    )

    metrics: tuple[Metric, ...] = ("ndcg", "recall", "hit", "precision", "mrr", "map")
    k: tuple[Annotated[int, Field(ge=1)], ...] = Field((5, 10, 20), min_length=1)
    primary: str = Field(
        "ndcg@10", description="METRIC@K, auc or logloss, shown first in comparison and report."
    )

    @model_validator(mode="after")
    def _metrics_fit_the_task(self) -> Self:
        of_clicks = set(self.metrics) & set(CLICK_METRICS)
        if self.like_from is None and of_clicks:
            raise ValueError(
                f"metrics: {', '.join(sorted(of_clicks))} need like_from, the lowest rating that "
                "is a like"
            )
        if self.like_from is not None and len(of_clicks) < len(self.metrics):
            raise ValueError(
                "metrics: with like_from, likes are predicted and nothing is ranked; set metrics "
                "to [auc, logloss], primary to auc and training.valid_metric to auc"
            )
        return self

    def columns(self) -> list[tuple[Metric, int | None]]:
        """What is computed: every metric at every cut-off, or without one."""
        cuts: tuple[int | None, ...] = self.k if self.like_from is None else (None,)
        return [(metric, k) for metric in self.metrics for k in cuts]
