"""Section `evaluation`."""

import re
from collections.abc import Collection
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from models.config.arms import ArmName
from models.config.metrics import RANKING_METRICS
from models.config.plugins import Table, is_path
from models.config.section import Section, named
from models.errors import cut

ClickMetric = Literal["auc", "logloss"]
CLICK_METRICS: tuple[ClickMetric, ...] = get_args(ClickMetric)
_METRICS: Table[object] = Table(
    {**RANKING_METRICS, **dict.fromkeys(CLICK_METRICS)}, lambda name, _: RANKING_METRICS[name]
)
Metric = Annotated[str, *named(_METRICS)]


def parse_metric(text: str) -> tuple[Metric, int | None]:
    """Split `ndcg@10` into `("ndcg", 10)`; `auc` and `logloss` have no cut-off.

    Raises:
        ValueError: if the text is neither, or not METRIC@K with a known metric and K from 1.
    """
    if text in CLICK_METRICS:
        return text, None
    match = re.fullmatch(r"([^@]+)@([1-9][0-9]{0,8})", text)
    if match is None or not (is_path(match[1]) or match[1] in RANKING_METRICS):
        names = ", ".join(RANKING_METRICS.shipped)
        raise ValueError(
            f"{cut(repr(text))} is not METRIC@K with METRIC one of {names}, nor auc or logloss"
        )
    return RANKING_METRICS.known(match[1]), int(match[2])


ClaimStep = Literal["own-baseline", "controls", "reference"]


class Claims(Section):
    """The verdicts' family: on the primary metric, one chain of claims per model.

    It is declared before test is scored, and errs in at most 5 % of all experiments. All other
    comparisons are exploratory.
    """

    models: tuple[str, ...] | None = Field(
        None, description="Models with a chain. Empty: every model with an arm of knowledge."
    )
    steps: tuple[ClaimStep, ...] = Field(
        ("own-baseline", "controls", "reference"),
        description="Claims of a chain, in order: above its baseline, above every control, above "
        "the best reference. A chain ends before a step that has nothing to compare with.",
    )
    controls: tuple[ArmName, ...] | None = Field(
        None, min_length=1, description="Controls to be above. Empty: all that are trained."
    )
    references: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Models whose baseline may be the reference; the best on validation is. "
        "Empty: computed models and those trained without knowledge.",
    )
    points: tuple[str, ...] | None = Field(
        None,
        description="Points of a grid that have chains. Empty: none of several points, which are a "
        "sweep; points that differ in split.seed alone are replicates, not several.",
    )

    @model_validator(mode="after")
    def _steps_keep_their_order(self) -> Self:
        order = [step for step in get_args(ClaimStep) if step in self.steps]
        if list(self.steps) != order or self.steps[:1] != ("own-baseline",):
            raise ValueError(
                f"steps: {list(self.steps)} does not begin with own-baseline, or has another "
                "order. Set some of [own-baseline, controls, reference], in this order"
            )
        return self

    def problem(
        self, models: Collection[str], arms: Collection[str], points: Collection[str]
    ) -> str | None:
        """Name what the claims ask for and an experiment does not have; None if it has all."""
        for key, asked, known in (
            ("models", self.models, models),
            ("references", self.references, models),
            ("controls", self.controls, arms),
            ("points", self.points, points),
        ):
            absent = [name for name in asked or () if name not in known]
            if absent:
                return (
                    f"evaluation.claims.{key}: nothing runs as {', '.join(absent)}. Set some of "
                    f"{', '.join(known) or 'none'}"
                )
        return None


class Evaluation(Section):
    """Full-ranking metrics on valid and test, or AUC and LogLoss of predicted likes."""

    like_from: float | None = Field(
        None,
        description="The lowest rating that is a like: context-aware models then predict likes and "
        "are judged by auc and logloss. Empty: every interaction is positive, and models rank the "
        "whole catalogue.",
    )

    metrics: tuple[Metric, ...] = Field(
        ("ndcg", "recall", "hit", "precision", "mrr", "map"),
        description="auc and logloss judge predicted likes, the others judge rankings.",
    )
    k: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (5, 10, 20), min_length=1, description="Cut-offs; the largest is the rankings' length."
    )
    candidates: Literal["all", "new"] = Field(
        "all",
        description="What is ranked for a user: all items but the user's own, or, of these, the "
        "new ones alone, which no training interaction has, as with split.strategy cold-items.",
    )
    primary: str = Field("ndcg@10", description="Metric of the verdicts: METRIC@K, auc or logloss.")
    claims: Claims = Claims()

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
