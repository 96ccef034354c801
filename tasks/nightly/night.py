"""One night of an experiment: nobody else's at the same time, what is new, and how it ended."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import Timeout
from prefect.runtime import flow_run

from models.config import ARMS, BASELINE, ArmName, Nightly, Pipeline, Side, parse_metric
from models.credentials import masked
from models.errors import BadInput
from models.publishing.promotion_gate import JUDGED, Decision, too_few_new
from models.recommenders.registry import entry
from tasks.dataset.incoming_task import Folded
from tasks.dataset.outputs import Interactions, Splits
from tasks.dataset.requirements import require_enough_items
from tasks.embeddings.outputs import Described, knowledge
from tasks.execution.stage import verify
from tasks.nightly.promotion_log import promotions, record
from tasks.profiles.outputs import Previous
from tasks.publishing.manifest import Manifest, current, read
from tasks.publishing.outputs import Compared, Judged, Promotion, Recommended
from tasks.publishing.publishing_task import version_of
from tasks.storage.artifacts import Handle, MissingArtifact, data_dir, versions
from tasks.storage.data_dir import data_lock
from tasks.targets.outputs import Kept, Targeted
from tasks.training.outputs import Trained
from tasks.training.worker import starting_point


@contextmanager
def alone(experiment: str) -> Iterator[None]:
    """Refuse a second night of an experiment while one is at work.

    The kernel holds the lock, so that a killed night leaves none.

    Raises:
        BadInput: if one is at work already.
    """
    try:
        held = data_lock(f"nightly-{experiment}").acquire(timeout=0)
    except Timeout:
        raise BadInput(
            f"a nightly run of {experiment} is at work in {data_dir()}. Wait until it ends."
        ) from None
    with held:
        yield


@dataclass(frozen=True)
class Made:
    """A night's results until its challenger is judged."""

    parts: Splits
    trained: Trained
    described: tuple[Described, ...]
    targeted: Mapping[Side, Targeted]
    initial: Handle | None = None

    def inputs(self) -> dict[str, Handle]:
        """List the artifacts that went into the challenger, by name."""
        made = {part: getattr(self.parts, part) for part in ("train", "valid", "test")}
        for side in self.described:
            if side.profiled:
                made[f"profiles of {side.side}"] = side.profiled.profiles
            made[f"embeddings of {side.side}"] = side.embedded.embeddings
        return made | {f"targets of {side}": made.targets for side, made in self.targeted.items()}

    def embeddings(self) -> dict[Side, Handle]:
        """List the vectors of the sides that have texts."""
        return {side.side: side.embedded.embeddings for side in self.described}

    def profiles(self, pipeline: Pipeline) -> dict[Side, Previous]:
        """Pick the profiles that a later night may keep."""
        found = {}
        for described in self.described:
            min_new = pipeline.profiles_of(described.side).min_new_interactions
            previous = described.profiled and described.profiled.previous(min_new)
            if previous:
                found[described.side] = previous
        return found

    def cost_usd(self, computed: set[Side | None]) -> float | None:
        """Add up the cost of the sides with newly computed profiles; None if one is not known."""
        costs = [
            described.profiled.cost_usd
            for described in self.described
            if described.profiled and described.side in computed
        ]
        return None if None in costs else float(sum(filter(None, costs)))

    def refit(self) -> str | None:
        """Say why each side's reducer was fitted, or that it was kept."""
        return ", ".join(f"{side}: {made.refit}" for side, made in self.targeted.items()) or None


@dataclass(frozen=True)
class Night:
    """A night before its training.

    `data` has the drops folded in; `new` counts interactions since the last challenger was judged.
    """

    pipeline: Pipeline
    opened: Promotion
    champion: Manifest | None
    anchor: Manifest | None
    data: Interactions
    new: int
    quarantined: int

    @property
    def training(self) -> tuple[str, ArmName, int]:
        """The challenger's model, arm and seed."""
        rule = self.pipeline.nightly
        return next(iter(self.pipeline.models)), rule.arm, rule.seed

    def skipped(self) -> Decision | None:
        """Say why nothing is trained tonight, if so. Without a champion, something always is."""
        if self.champion is None:
            return None
        return too_few_new(self.new, self.pipeline.nightly.min_new_interactions)

    def ended(self, how: Decision) -> Promotion:
        """Make the row of a night without a challenger."""
        found = {
            "champion_version": self.champion.version if self.champion else None,
            "decision": how.outcome,
            "reason": how.reason,
            "interactions": self.data.interactions.rows,
            "new_interactions": self.new,
            "quarantined": self.quarantined,
        }
        return self.opened.model_copy(update=found)

    def judged(self, judged: Judged, made: Made, computed: set[Side | None]) -> Promotion:
        """Make the row of a night with a challenger; see `Made.cost_usd` for `computed`."""
        champion = self.champion.version if self.champion else None
        found = {
            "challenger_version": version_of(
                self.opened.decided_at, made.trained, self.data, champion, self.pipeline.nightly
            ),
            "start": "warm" if made.initial else "cold",
            "refit": made.refit(),
            "cost_usd": made.cost_usd(computed),
            **judged.model_dump(include=set(Compared.model_fields) - {"champion_version"}),
        }
        return self.ended(Decision(judged.decision, judged.reason)).model_copy(update=found)

    def earlier_profiles(self) -> dict[Side, Previous]:
        """Carry the champion's profiles over, by side, under tonight's policy; only whole ones."""
        earlier = self.champion.profiles if self.champion else {}
        return {
            side: previous.model_copy(
                update={"min_new": self.pipeline.profiles_of(side).min_new_interactions}
            )
            for side, previous in earlier.items()
            if _is_whole(previous)
        }

    def earlier_reducers(self) -> dict[str, Kept]:
        """Carry the champion's reducers over, under tonight's policy; only whole ones."""
        earlier = self.champion.reducers if self.champion else {}
        policy = {"refit": self.pipeline.targets.refit}
        return {
            name: kept.model_copy(update=policy)
            for name, kept in earlier.items()
            if _is_whole(kept)
        }

    def starting_point(self) -> Handle | None:
        """Carry the champion's weights over for a warm start, if one is asked for.

        The start is cold if the champion is another model, has other hyper-parameters, or is
        computed.

        Raises:
            MissingArtifact: if the champion is not whole.
        """
        model, champion = self.training[0], self.champion
        if champion is None or self.pipeline.nightly.start == "cold" or not entry(model).loader:
            return None
        wanted = model, self.pipeline.models[model].given
        if (champion.job.model, champion.job.hyperparameters) != wanted:
            return None
        return starting_point(*champion.judged_model())


def _is_whole(kept: Kept | Previous) -> bool:
    """Whether all artifacts are there; a night goes on without deleted ones."""
    try:
        verify(kept)
    except MissingArtifact:
        return False
    return True


def overtaken(row: Promotion) -> Promotion:
    """Make the row of a night whose champion was replaced while it was at work."""
    reason = (
        "another version became current while the challenger was being judged; it will be judged "
        f"against that. {row.reason[0].upper()}{row.reason[1:]}"
    )
    return row.model_copy(update={"decision": "kept", "reason": reason})


def drops_folder(rule: Nightly) -> Path:
    """Name the folder in which new interactions arrive."""
    return Path(rule.incoming).expanduser() if rule.incoming else data_dir() / "incoming"


def require_rankings(pipeline: Pipeline, data: Interactions) -> None:
    """Refuse, before anything is paid for, predicted likes and lists longer than the catalogue."""
    if pipeline.evaluation.like_from is not None:
        raise BadInput(
            "evaluation.like_from: the nightly flow publishes rankings, not likes. Leave it empty."
        )
    rule = pipeline.nightly
    _, k = parse_metric(rule.metric or pipeline.evaluation.primary)
    require_enough_items(pipeline, data, metric=k or 0, k=rule.k)


def require_tap_points(pipeline: Pipeline, entered: Mapping[str, Mapping[Side, object]]) -> None:
    """Refuse a transfer to a model that takes no knowledge."""
    for model, sides in entered.items():
        if not ARMS[pipeline.nightly.arm].suits(model, sides):
            raise BadInput(
                f"nightly.arm is {pipeline.nightly.arm}, but knowledge does not enter {model}. Set "
                f"nightly.arm to {BASELINE}, or models.{model}.transfer if `llmkt models` says "
                "that it may."
            )


def opened(pipeline: Pipeline) -> Promotion:
    """Record that a night has begun: a failed one, until it says how it ended.

    Nights are told apart and ordered by their start, so a clock that went back goes on from the
    newest night.
    """
    rule, newest = pipeline.nightly, promotions(pipeline.experiment)[:1]
    metric, k = parse_metric(rule.metric or pipeline.evaluation.primary)
    later = [row["decided_at"] + timedelta(milliseconds=1) for row in newest]
    row = Promotion(
        experiment=pipeline.experiment,
        decided_at=max([datetime.now(UTC), *later]),
        flow_run_id=flow_run.get_id(),
        challenger_version=None,
        metric=metric,
        k=k or 0,  # of likes, which `require_rankings` refuses
        tolerance=rule.tolerance,
        decision="failed",
        reason="still at work, or killed before it ended",
        interactions=0,
        new_interactions=0,
        quarantined=0,
        start="cold",
    )
    record([row])
    return row


def failed(row: Promotion, error: BaseException) -> Promotion:
    """Record why a night failed. Without room for it, the row says still that it was begun."""
    row = row.model_copy(update={"reason": masked(str(error)) or type(error).__name__})
    with suppress(Exception):
        record([row])
    return row


def begin(pipeline: Pipeline, row: Promotion, folded: Folded) -> Night:
    """Count the new interactions, and record a promotion that a crash left unrecorded."""
    champion = current(pipeline.experiment)
    rows = promotions(pipeline.experiment)
    known = {(night["challenger_version"], night["decision"]) for night in rows}
    if champion and (champion.version, "published") not in known:
        record([champion.decision.model_copy(update={"decision": "published"})])
        rows = promotions(pipeline.experiment)
    judged = [night["interactions"] for night in rows if night["decision"] in JUDGED]
    before = judged[0] if judged and champion else 0
    return Night(
        pipeline=pipeline,
        opened=row,
        champion=champion,
        anchor=_anchor(champion),
        data=folded.data,
        new=max(folded.data.interactions.rows - before, 0),
        quarantined=folded.quarantined,
    )


def _anchor(champion: Manifest | None) -> Manifest | None:
    """The champion's anchor, unless it is the champion, or no longer there."""
    if champion is None or champion.anchor in (None, champion.version):
        return None
    with suppress(BadInput, MissingArtifact):
        anchor = read(champion.experiment, str(champion.anchor))
        anchor.verify()
        return anchor
    return None


def manifest(
    night: Night,
    row: Promotion,
    judged: Judged,
    offered: Recommended,
    made: Made,
    reducers: Mapping[str, Kept],
) -> Manifest:
    """Make the manifest of the version that the night publishes, still without files.

    A first version, and one that a human has to approve, is the anchor of those that follow.
    """
    assert row.challenger_version is not None
    is_anchor = night.champion is None or row.decision == "needs approval"
    anchor = row.challenger_version if is_anchor else night.champion and night.champion.anchor
    rule = night.pipeline.nightly
    return Manifest(
        experiment=row.experiment,
        version=row.challenger_version,
        created_at=night.opened.decided_at,
        previous=row.champion_version,
        anchor=anchor,
        served_from=rule.serve_from,
        dataset=night.pipeline.dataset.name,
        job=made.trained.job,
        files={},
        inputs={"interactions": night.data.interactions, **made.inputs()},
        **offered.serving.model_dump(),
        vectors={str(side): meaning for side, meaning in offered.meaning.items()},
        scored_by_product=offered.scored_by_product,
        metrics=judged.metrics,
        epochs=made.trained.epochs,
        knowledge=knowledge(made.described),
        decision=row,
        packages=dict(versions()),
        reducers=dict(reducers),
        profiles=made.profiles(night.pipeline),
        sinks=rule.sinks,
    )
