"""From profiles to the targets of every single training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from flows.steps.stage_runner import StageRunner
from models.config import SIDES, Arm, ArmName, Pipeline, Refit, Side, Targets
from models.errors import BadInput
from models.profiles.prompt_templates import Template
from tasks.config.prompt_file import SECTIONS
from tasks.dataset.outputs import Interactions, Splits
from tasks.embeddings.embeddings_task import embeddings
from tasks.embeddings.outputs import Described
from tasks.embeddings.pooling_task import pooling
from tasks.embeddings.sources_task import sources
from tasks.profiles.knowledge_pack import given_texts
from tasks.profiles.outputs import Previous, Provenance
from tasks.profiles.profiles_task import profiles
from tasks.storage.imported_files import vector_files
from tasks.targets.outputs import Kept, Targeted
from tasks.targets.targets_task import controls, targets
from tasks.training.tap_points import TapPoints

Training = tuple[str, ArmName, int]
"""Model, arm and seed."""
Knowledge = dict[Training, dict[Side, Targeted]]
"""What each training with knowledge is given, by side."""
Forms = dict[str, tuple[Targets, int | None]]
"""How each model's targets are made, and how wide they are."""
Reducers = Mapping[str, Kept]
"""An earlier run's reducers, by what `_reducer_name` calls them."""


def sides_of(pipeline: Pipeline, taps: TapPoints) -> tuple[Side, ...]:
    """Whose profiles the run needs; users who are described by their items need the items'."""
    taken = {arm.takes for arm in pipeline.training.arm_rows}
    if taken == {"nothing"}:
        return ()
    if any(arm.takes_whole for arm in pipeline.training.arm_rows):
        return SIDES
    needed = {side for points in taps.values() for side in points}
    if "users" in needed and pipeline.profiles.pooled:
        return SIDES
    return tuple(side for side in SIDES if side in needed)


@dataclass(frozen=True)
class KnowledgeSteps:
    """The steps from profiles to targets, of a pipeline on its data."""

    pipeline: Pipeline
    data: Interactions
    splits: Splits
    stages: StageRunner

    def describe(
        self, prompts: Mapping[Side, Template], earlier: Mapping[Side, Previous]
    ) -> list[Described]:
        """Profiles and embeddings of every side with a prompt, items first: users may need them.

        `earlier` has an earlier run's profiles, for users who have hardly changed since.
        """
        described: dict[Side, Described] = {}
        for side in reversed(SIDES):
            if side not in prompts:
                continue
            if side == "users" and self.pipeline.profiles.pooled:
                items = described["items"]
                described[side] = Described(
                    side="users",
                    profiled=None,
                    embedded=self.stages.run(
                        pooling, items.embedded, self.splits.train, side="users"
                    ),
                    pooled=True,
                    item_profiles=items.profiled,
                    further=items.further,
                )
            else:
                described[side] = self._of_side(side, prompts[side], earlier.get(side))
        return [described[side] for side in SIDES if side in described]

    def _of_side(self, side: Side, prompt: Template, previous: Previous | None) -> Described:
        """The sources of one side's knowledge, in one vector each; see `Targets.sources`."""
        active, data = self.pipeline.targets.active_sources, self.data
        found: dict[str, Described] = {}
        if "profiles" in active:
            found["profiles"] = self._profiles(side, prompt, previous)
        if "offline" in active:
            offline = _written_offline(self.pipeline, side, "profiles" in active)
            found["offline"] = replace(self, pipeline=offline)._profiles(side, prompt)
        if list(active) == ["profiles"]:
            return found["profiles"]
        texts = {name: described.embedded for name, described in found.items()}
        given = active, texts, data.items, self.splits.train, data.users, side
        embedded = self.stages.run(sources, *given, side=side)
        first = next(iter(found.values()), None)
        profiled = first.profiled if first else None
        further: dict[str, Provenance] = {
            described.source: described.provenance
            for described in found.values()
            if described is not first or profiled is None
        }
        of_items: Provenance = "none seen" if side == "items" else "train-only"
        further |= dict.fromkeys((name for name in active if name not in found), of_items)
        return Described(side=side, profiled=profiled, embedded=embedded, further=further)

    def _profiles(
        self, side: Side, prompt: Template, previous: Previous | None = None
    ) -> Described:
        """Profiles and their embeddings; vectors made elsewhere need no profiles."""
        pipeline, data, train = self.pipeline, self.data, self.splits.train
        writing, embedding = pipeline.profiles_of(side), pipeline.embeddings_of(side)
        vectors = vector_files(embedding)
        if vectors and side == "items" and pipeline.item_embeddings is None:
            raise BadInput(
                "embeddings: these are the users' imported vectors, but a transfer needs the "
                "items' too. Set item_embeddings"
            )
        if vectors:
            embedded = self.stages.run(embeddings, embedding, None, train, vectors, side, side=side)
            return Described(side=side, profiled=None, embedded=embedded)
        given, card = given_texts(writing, side)
        seen = data.interactions if pipeline.sees_all(side) else train
        people = data.demographics if side == "users" else None
        inputs = writing, prompt, seen, data.items, given, side, people, previous, card
        profiled = self.stages.run(profiles, *inputs, side=side)
        embedded = self.stages.run(embeddings, embedding, profiled.profiles, side=side)
        return Described(side=side, profiled=profiled, embedded=embedded)

    def target(
        self,
        forms: Mapping[Side, Forms],
        described: Sequence[Described],
        kept: Reducers | None,
    ) -> Knowledge:
        """Make what every training with knowledge takes: targets, of controls too, or features.

        `kept` has an earlier run's reducers; empty keeps this run's for later ones, None none.
        """
        knowledge: Knowledge = {}
        for known in described:
            own = self._targets(forms[known.side], known, kept)
            for arm in self.pipeline.training.arm_rows:
                same = own if arm.takes == "targets" else self._features(arm, known)
                for seed in self.pipeline.training.seeds:
                    if arm.make_targets:
                        taken = self._controls(arm, seed, same, known.side, forms[known.side])
                    elif arm.shuffles_items and forms[known.side]:
                        shuffled = self._by_shuffled_items(arm, seed, known, described)
                        taken = self._targets(forms[known.side], shuffled, None)
                    else:
                        taken = same
                    for model, targeted in taken.items():
                        knowledge.setdefault((model, arm.name, seed), {})[known.side] = targeted
        return knowledge

    def _targets(
        self, forms: Forms, described: Described, kept: Reducers | None
    ) -> dict[str, Targeted]:
        """Each model's targets; models that want the same share them, as all equal stages do."""
        side, known = described.side, described.embedded.embeddings
        made = {}
        for model, (form, width) in forms.items():
            reducer = (kept or {}).get(_reducer_name(side, form.reduction, width))
            inputs = form, known, width, kept is not None, reducer
            made[model] = self.stages.run(targets, *inputs, side=side)
        return made

    def _controls(
        self, arm: Arm, seed: int, same: Mapping[str, Targeted], side: Side, forms: Forms
    ) -> dict[str, Targeted]:
        """A control's targets in place of the profiles', for the models that have it."""
        of, made = self.pipeline, {}
        for model, targeted in same.items():
            if arm in of.arms_of(model) and seed in of.seeds_of(model):
                form, _ = forms.get(model, (of.targets, None))
                inputs = form, arm.name, targeted.targets, self.splits.train, self.data.items, seed
                made[model] = self.stages.run(controls, *inputs, side=side)
        return made

    def _by_shuffled_items(
        self, arm: Arm, seed: int, users: Described, described: Sequence[Described]
    ) -> Described:
        """Users as the mean of items that have each other's vectors."""
        items = next((known for known in described if known.side == "items"), None)
        if not users.pooled or items is None:
            raise BadInput(
                f"training.arms: {arm.name} is for users who are described by their items. Set "
                "profiles.provider to items and transfer.side to users, or remove the arm"
            )
        inputs = items.embedded, self.splits.train, seed
        shuffled = self.stages.run(pooling, *inputs, side="users")
        return users.model_copy(update={"embedded": shuffled})

    def _features(self, arm: Arm, described: Described) -> dict[str, Targeted]:
        """The whole embeddings of one side, for models that take them as features in this arm."""
        models = [model for model in self.pipeline.models if arm.suits(model, ())]
        if not arm.takes_whole or not models:
            return {}
        # Features stay as small as the model's own: text models give vectors of unit length.
        form = self.pipeline.targets.model_copy(update={"reduction": "none", "scale": "none"})
        inputs = form, described.embedded.embeddings, None
        whole = self.stages.run(targets, *inputs, side=described.side)
        return dict.fromkeys(models, whole)


def _written_offline(pipeline: Pipeline, side: Side, beside: bool) -> Pipeline:
    """The pipeline with its side's profiles written offline; `beside` the configured ones."""
    writing, embedding = pipeline.profiles_of(side), pipeline.embeddings_of(side)
    section = SECTIONS[side]
    if beside and writing.provider == "offline":
        raise BadInput(
            f"targets.sources: the {side}' profiles are written offline already. Leave out "
            f"offline, or set {section}.provider to another"
        )
    if embedding.provider == "import":
        raise BadInput(
            "targets.sources: offline needs a text model, but embeddings.provider is import. Leave "
            "out offline"
        )
    offline = writing.model_copy(update={"provider": "offline", "path": None})
    return pipeline.model_copy(update={section: offline})


def _reducer_name(side: Side, reduction: str | None, width: int | None) -> str:
    """`users umap 64`; without a reduction the width says nothing."""
    return f"{side} none" if reduction == "none" else f"{side} {reduction or 'umap'} {width}"


def kept_reducers(knowledge: Knowledge, refit: Refit) -> dict[str, Kept]:
    """The reducers of a run that kept them, for the next one to use under the policy `refit`."""
    found: dict[str, Kept] = {}
    for sides in knowledge.values():
        for side, targeted in sides.items():
            reducer = targeted.kept(refit)
            if reducer is not None:
                found[_reducer_name(side, targeted.reduction, targeted.width)] = reducer
    return found


def target_forms(pipeline: Pipeline, taps: TapPoints, side: Side) -> Forms:
    """How each model's targets are made, and how wide: as its tapped layer, if not otherwise.

    A model without a tap takes whole embeddings.
    """
    asked = pipeline.targets.width
    forms: Forms = {}
    for model, points in taps.items():
        if side not in points:
            continue
        tap, width = points[side].tap, points[side].width
        settings = pipeline.targets_of(model)
        if tap is None:
            forms[model] = settings.model_copy(update={"reduction": "none"}), None
            continue
        method = pipeline.transfer_of(model).method
        if method.mapped and settings.reduction == "umap":
            raise BadInput(
                f"targets.reduction is umap, but the alignment mapped of {model} learns its axes "
                "from the whole embedding. Leave targets.reduction empty, or set it to pca."
            )
        if asked not in (None, width) and not method.bridges:
            raise BadInput(
                f"targets.width is {asked}, but the tapped layer {tap.name} of {model} is {width} "
                f"wide. Leave targets.width empty, or set models.{model}.tap with start and stop"
            )
        forms[model] = settings, asked or width
    return forms
