"""Sections `transfer`, `kar` and `llm_cf`, and a model's tap."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field

from models.config.alignments import ALIGNMENTS, Alignment, AlignmentName
from models.config.section import SIDES, Section, Side

Phase = Literal["transfer", "finetune"]

COMMITTED = {"EASE": 0.25, "iALS": 1.0, "Blend": 0.75}
"""Strengths of models that take whole embeddings, which no alignment concerns."""


class Freeze(Section):
    """Layers that a phase does not train: parameter names or globs, e.g. `item_embedding.*`."""

    transfer: tuple[str, ...] = Field((), description="Layers frozen in the first phase.")
    finetune: tuple[str, ...] = Field((), description="Layers frozen in the second phase.")


class Teacher(Section):
    """The alignment `teacher` only: the model whose scores teach, see `models.transfer.teacher`.

    It sees the training part and the embeddings of `transfer.side`.
    """

    model: Literal["EASE", "iALS", "Blend"] = Field("EASE", description="The teacher.")
    alpha: float = Field(
        0.5, ge=0, le=1, description="The knowledge's share in the teacher; 0: a teacher without."
    )
    hyperparameters: dict[str, Any] = Field(
        default_factory=dict, description="Of the teacher, as in `models`."
    )
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        1.0,
        description="Its scores, in standard deviations of a user's, are divided by this before "
        "the softmax.",
    )
    users: int = Field(64, ge=1, description="So many of a batch's rows are taught, at most.")


class Transfer(Section):
    """The knowledge-transfer settings (LLM-KT, arXiv 2411.00556, section 3)."""

    alignment: AlignmentName = Field(
        "rmse",
        description="; ".join(f"{name}: {row.description}" for name, row in ALIGNMENTS.items())
        + ".",
    )
    side: Side | Literal["both"] = Field("users", description="Whose profiles are transferred.")
    alpha: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        "auto",
        description="Weight of the reconstruction loss: (1-alpha)·model + alpha·transfer. auto: a "
        "search chooses it on validation, 0 among the choices; without one, what is committed for "
        "the model or the alignment (docs/models.md).",
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
    scale: Literal["layer", "none"] | Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Scale of the targets for rmse, mse, init and mapped (of its first map): "
        "layer: the tapped layer's own standard deviation in the first step; a number: that "
        "standard deviation; none: as in the file. Empty: 0.3 for mapped, else layer.",
    )
    temperature: Annotated[float, Field(gt=0)] = Field(
        0.2, description="contrastive only: of InfoNCE."
    )
    mask: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="generative only: share of the tapped vector's columns that are hidden."
    )
    shrinkage: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        100.0,
        description="mapped only: k. A user (item) with n training interactions is pulled with the "
        "weight k/(n+k).",
    )
    ridge: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        1000.0,
        description="mapped only: ridge penalty of a step of the map, in units of a target's mean "
        "square norm.",
    )
    teacher: Teacher = Teacher()
    freeze: Freeze = Freeze()
    columns: int | None = Field(
        None,
        ge=1,
        description="Align only the first N columns of the tapped layer; empty: all. The published "
        "code amounts to 2: its UMAP returns two coordinates whatever the layer's width, so no "
        "other column gets a gradient.",
    )

    @property
    def sides(self) -> tuple[Side, ...]:
        """`side` taken apart."""
        return SIDES if self.side == "both" else (self.side,)

    @property
    def strength(self) -> float:
        """`alpha`, the alignment's where it is not chosen."""
        return self.method.strength if self.alpha == "auto" else self.alpha

    def committed(self, model: str) -> Self:
        """The settings with `model`'s own strength in place of `auto`."""
        if self.alpha != "auto":
            return self
        return self.model_copy(update={"alpha": COMMITTED.get(model, self.strength)})

    @property
    def method(self) -> Alignment:
        """The alignment's row."""
        return ALIGNMENTS[self.alignment]


class Tap(Section):
    """What is aligned: a module's output, a parameter, or a method's return value.

    `llmkt inspect MODEL` lists what a model has.
    """

    kind: Literal["module", "parameter", "method"] = Field(
        "module", description="A module's output, a parameter, or a method's return value."
    )
    name: str = Field(description="Name inside the model, as `llmkt inspect MODEL` prints it.")
    output: int | None = Field(None, ge=0, description="Element of a returned tuple.")
    rows: Literal["batch", "all"] = Field(
        "batch",
        description="batch: one row per row of the batch or per looked-up id; all: one row per "
        "user (item) of the data set, as graph models return them.",
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


class Kar(Section):
    """The adaptor of the arm kar; see `models.recommenders.comparators.kar`."""

    shared_experts: int = Field(2, ge=1, description="Experts that users and items share.")
    own_experts: int = Field(2, ge=1, description="Experts of each side alone.")
    hidden: int = Field(64, ge=1, description="Width between an expert's two layers.")


class LlmCf(Section):
    """The examples of the arms llm-cf; see `models.recommenders.comparators.llm_cf`."""

    examples: int = Field(
        4,
        ge=2,
        multiple_of=2,
        description="Training rows that a prediction reads, half liked: even.",
    )
    pool: int = Field(
        10_000, ge=1, description="Training rows, drawn at random, that can be retrieved."
    )
    width: int = Field(32, ge=2, multiple_of=2, description="Width of the decoder: even.")
    reconstruction: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        1.0, description="Weight of the loss that rebuilds thoughts."
    )
    thoughts: bool = Field(True, description="Whether examples have their token of thought.")
    leak: bool = Field(
        False,
        description="Whether a training row may retrieve itself with its label, as in the "
        "published script. For measurement only.",
    )
