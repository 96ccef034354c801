"""One night of an experiment: nobody else's at the same time, what is new, and how it ended."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from prefect.runtime import flow_run

from models.config import ARMS, BASELINE, ArmName, Nightly, Pipeline, Side, parse_metric
from models.errors import BadInput
from models.publishing.promotion_gate import Decision, too_few_new
from tasks.dataset.incoming_task import Folded
from tasks.dataset.outputs import Interactions, Splits
from tasks.embeddings.outputs import Described, knowledge
from tasks.nightly.outputs import Judged
from tasks.nightly.promotion_log import promotions, record
from tasks.profiles.outputs import Previous
from tasks.publishing.manifest import Manifest
from tasks.publishing.outputs import Offered, Promotion
from tasks.publishing.publishing_task import version_of
from tasks.storage.artifacts import Handle, data_dir, versions
from tasks.targets.outputs import Kept, Targeted
from tasks.training.outputs import Trained


@contextmanager
def alone(experiment: str) -> Iterator[None]:
    """Refuse a second night of an experiment while one is at work.

    The kernel holds the lock, so that a killed night leaves none.

    Raises:
        BadInput: if one is at work already.
    """
    folder = data_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"nightly-{experiment}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(
            f"a nightly run of {experiment} is at work in {data_dir()}; wait until it has ended"
        ) from None
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class Made:
    """What a night has made until its challenger is judged."""

    parts: Splits
    trained: Trained
    described: tuple[Described, ...]
    targeted: Mapping[Side, Targeted]
    initial: Handle | None = None

    def inputs(self) -> dict[str, Handle]:
        """The artifacts that went into the challenger, by name."""
        made = {part: getattr(self.parts, part) for part in ("train", "valid", "test")}
        for of in self.described:
            if of.profiled:
                made[f"profiles of {of.side}"] = of.profiled.profiles
            made[f"embeddings of {of.side}"] = of.embedded.embeddings
        return made | {f"targets of {side}": of.targets for side, of in self.targeted.items()}

    def profiles(self, pipeline: Pipeline) -> dict[Side, Previous]:
        """The profiles that a later night may keep."""
        found = {
            of.side: of.profiled.previous(pipeline.profiles_of(of.side).min_new_interactions)
            for of in self.described
            if of.profiled
        }
        return {side: of for side, of in found.items() if of is not None}

    def cost_usd(self, computed: set[Side | None]) -> float | None:
        """What the profiles of the given sides cost; None if a price is not known."""
        total = 0.0
        for of in self.described:
            if of.profiled is None or of.side not in computed:
                continue
            if of.profiled.cost_usd is None:
                return None
            total += of.profiled.cost_usd
        return total

    def refit(self) -> str | None:
        """Why each side's reducer was fitted, or that it was kept."""
        return ", ".join(f"{side}: {of.refit}" for side, of in self.targeted.items()) or None


@dataclass(frozen=True)
class Night:
    """What is known before anything is trained.

    Attributes:
        pipeline: from `Pipeline.tonight`.
        at: when it began.
        champion: what is published; None before the first.
        data: all there is, drops folded in.
        new: how many interactions came since the last challenger was judged.
        quarantined: rows and files of drops that were refused.
    """

    pipeline: Pipeline
    at: datetime
    champion: Manifest | None
    data: Interactions
    new: int
    quarantined: int

    @property
    def training(self) -> tuple[str, ArmName, int]:
        """Model, arm and seed of the challenger."""
        rule = self.pipeline.nightly
        return next(iter(self.pipeline.models)), rule.arm, rule.seed

    def skipped(self) -> Decision | None:
        """Why nothing is trained tonight, if so. Without a champion there is always reason to."""
        if self.champion is None:
            return None
        return too_few_new(self.new, self.pipeline.nightly.min_new_interactions)

    def ended(self, how: Decision) -> Promotion:
        """The row of a night without a challenger."""
        rule = self.pipeline.nightly
        metric, k = parse_metric(rule.metric or self.pipeline.evaluation.primary)
        assert k is not None
        return Promotion(
            experiment=self.pipeline.experiment,
            decided_at=self.at,
            flow_run_id=flow_run.get_id(),
            champion_version=self.champion.version if self.champion else None,
            challenger_version=None,
            metric=metric,
            k=k,
            tolerance=rule.tolerance,
            decision=how.outcome,
            reason=how.reason,
            interactions=self.data.interactions.rows,
            new_interactions=self.new,
            quarantined=self.quarantined,
            start="cold",
        )

    def judged(self, judged: Judged, made: Made, computed: set[Side | None]) -> Promotion:
        """The row of a night with a challenger.

        Args:
            judged: from the gate.
            made: what the night has made.
            computed: sides whose profiles were not all taken from the cache.
        """
        champion = self.champion.version if self.champion else None
        return self.ended(Decision(judged.decision, judged.reason)).model_copy(
            update={
                "challenger_version": version_of(self.at, made.trained, self.data, champion),
                "start": "warm" if made.initial else "cold",
                "refit": made.refit(),
                "cost_usd": made.cost_usd(computed),
                **judged.model_dump(include=_COMPARED),
            }
        )


_COMPARED = {"champion_mean", "challenger_mean", "difference", "ci_low", "ci_high", "users"}


def overtaken(row: Promotion) -> Promotion:
    """The row of a night whose champion was replaced while it was at work."""
    reason = (
        "another version became current while the challenger was being judged; it will be judged "
        f"against that. {row.reason[0].upper()}{row.reason[1:]}"
    )
    return row.model_copy(update={"decision": "kept", "reason": reason})


def drops_folder(rule: Nightly) -> Path:
    """Where new interactions arrive."""
    return Path(rule.incoming).expanduser() if rule.incoming else data_dir() / "incoming"


def require_rankings(pipeline: Pipeline, data: Interactions) -> None:
    """Refuse what the nightly flow cannot publish, before anything is paid for.

    Raises:
        BadInput: for predicted likes, and for lists longer than the catalogue.
    """
    if pipeline.evaluation.like_from is not None:
        raise BadInput(
            "evaluation.like_from: the nightly flow publishes rankings, not likes; leave it empty"
        )
    rule = pipeline.nightly
    _, k = parse_metric(rule.metric or pipeline.evaluation.primary)
    for key, length in (
        ("evaluation.k", max(pipeline.evaluation.k)),
        ("nightly.metric", k or 0),
        ("nightly.k", rule.k),
    ):
        if length > data.items.rows:
            raise BadInput(
                f"{key}: {length} is larger than the number of items, {data.items.rows}; lower it"
            )


def require_tap_points(pipeline: Pipeline, entered: Mapping[str, Mapping[Side, object]]) -> None:
    """Refuse a transfer to a model that takes no knowledge.

    Raises:
        BadInput: see `tasks.training.tap_points.tap_points`.
    """
    for model, sides in entered.items():
        if not ARMS[pipeline.nightly.arm].suits(model, sides):
            raise BadInput(
                f"nightly.arm is {pipeline.nightly.arm}, but knowledge does not enter {model}: set "
                f"nightly.arm to {BASELINE}, or models.{model}.transfer if `llmkt models` says "
                "that it may"
            )


def begin(pipeline: Pipeline, champion: Manifest | None, folded: Folded) -> Night:
    """Find out what is new, and mend what a crash left unrecorded.

    Args:
        pipeline: tonight's.
        champion: what is published.
        folded: all there is, drops folded in.
    """
    rows = promotions(pipeline.experiment)
    if champion and not any(of["challenger_version"] == champion.version for of in rows):
        record([champion.decision])
        rows = promotions(pipeline.experiment)
    judged = [of["interactions"] for of in rows if of["decision"] != "skipped"]
    before = judged[0] if judged and champion else 0
    return Night(
        pipeline=pipeline,
        at=datetime.now(UTC),
        champion=champion,
        data=folded.data,
        new=max(folded.data.interactions.rows - before, 0),
        quarantined=folded.quarantined,
    )


def manifest(
    night: Night,
    row: Promotion,
    judged: Judged,
    offered: Offered,
    made: Made,
    reducers: Mapping[str, Kept],
) -> Manifest:
    """The manifest of what the night publishes, still without files."""
    assert row.challenger_version is not None
    return Manifest(
        experiment=row.experiment,
        version=row.challenger_version,
        created_at=night.at,
        previous=row.champion_version,
        dataset=night.pipeline.dataset.name,
        job=made.trained.job,
        files={},
        inputs={"interactions": night.data.interactions, **made.inputs()},
        users_known=offered.users_known,
        users_served=offered.users_served,
        vectors={str(side): of for side, of in offered.meaning.items()},
        scored_by_product=offered.scored_by_product,
        metrics=judged.metrics,
        knowledge=knowledge(made.described),
        decision=row,
        packages=dict(versions()),
        reducers=dict(reducers),
        profiles=made.profiles(night.pipeline),
    )
