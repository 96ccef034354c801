"""From profiles to the targets of every single training."""

from collections.abc import Mapping, Sequence

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


def describe_all(
    pipeline: Pipeline,
    prompts: Mapping[Side, Template],
    data: Interactions,
    splits: Splits,
    stages: StageRunner,
    earlier: Mapping[Side, Previous] | None = None,
) -> list[Described]:
    """Profiles and embeddings of every side that has a prompt, items first: users may need them.

    `earlier` has an earlier run's profiles, for users who have changed too little for a new one.
    """
    described: dict[Side, Described] = {}
    for side in reversed(SIDES):
        if side not in prompts:
            continue
        if side == "users" and pipeline.profiles.pooled:
            items = described["items"]
            embedded = stages.run(pooling, items.embedded, splits.train, side="users")
            described[side] = Described(
                side="users",
                profiled=None,
                embedded=embedded,
                pooled=True,
                item_profiles=items.profiled,
                further=items.further,
            )
        else:
            before = (earlier or {}).get(side)
            described[side] = _describe(pipeline, side, prompts[side], data, splits, stages, before)
    return [described[side] for side in SIDES if side in described]


def _describe(
    pipeline: Pipeline,
    side: Side,
    prompt: Template,
    data: Interactions,
    splits: Splits,
    stages: StageRunner,
    previous: Previous | None,
) -> Described:
    """The sources of one side's knowledge, in one vector each; see `Targets.sources`."""
    active = pipeline.targets.active_sources
    found: dict[str, Described] = {}
    if "profiles" in active:
        found["profiles"] = _profiles(pipeline, side, prompt, data, splits, stages, previous)
    if "offline" in active:
        offline = _written_offline(pipeline, side, "profiles" in active)
        found["offline"] = _profiles(offline, side, prompt, data, splits, stages, None)
    if list(active) == ["profiles"]:
        return found["profiles"]
    texts = {name: described.embedded for name, described in found.items()}
    embedded = stages.run(
        sources, active, texts, data.items, splits.train, data.users, side, side=side
    )
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
    pipeline: Pipeline,
    side: Side,
    prompt: Template,
    data: Interactions,
    splits: Splits,
    stages: StageRunner,
    previous: Previous | None,
) -> Described:
    """Profiles and their embeddings; vectors made elsewhere need no profiles."""
    writing, embedding = pipeline.profiles_of(side), pipeline.embeddings_of(side)
    vectors = vector_files(embedding)
    if vectors and side == "items" and pipeline.item_embeddings is None:
        raise BadInput(
            "embeddings: these are the users' imported vectors, but a transfer needs the items' "
            "too. Set item_embeddings"
        )
    if vectors:
        embedded = stages.run(embeddings, embedding, None, splits.train, vectors, side, side=side)
        return Described(side=side, profiled=None, embedded=embedded)
    given, card = given_texts(writing, side)
    profiled = stages.run(
        profiles,
        writing,
        prompt,
        data.interactions if pipeline.sees_all(side) else splits.train,
        data.items,
        given,
        side,
        data.demographics if side == "users" else None,
        previous,
        card,
        side=side,
    )
    embedded = stages.run(embeddings, embedding, profiled.profiles, side=side)
    return Described(side=side, profiled=profiled, embedded=embedded)


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


def target_all(
    pipeline: Pipeline,
    forms: Mapping[Side, Forms],
    described: Sequence[Described],
    splits: Splits,
    data: Interactions,
    stages: StageRunner,
    kept: Reducers | None = None,
) -> Knowledge:
    """Make what every training with knowledge takes: targets, of controls too, or features.

    `kept` has an earlier run's reducers; empty keeps this run's for later ones, None keeps none.
    """
    knowledge: Knowledge = {}
    for known in described:
        own = _make_targets(forms[known.side], known, stages, kept)
        for arm in pipeline.training.arm_rows:
            same = own if arm.takes == "targets" else _features(arm, known, pipeline, stages)
            for seed in pipeline.training.seeds:
                if arm.make_targets:
                    inputs = splits.train, data.items, seed
                    taken = {
                        model: stages.run(
                            controls,
                            forms[known.side].get(model, (pipeline.targets, None))[0],
                            arm.name,
                            made.targets,
                            *inputs,
                            side=known.side,
                        )
                        for model, made in same.items()
                        if arm in pipeline.arms_of(model) and seed in pipeline.seeds_of(model)
                    }
                elif arm.shuffles_items and forms[known.side]:
                    shuffled = _by_shuffled_items(arm, seed, known, described, splits, stages)
                    taken = _make_targets(forms[known.side], shuffled, stages, None)
                else:
                    taken = same
                for model, targeted in taken.items():
                    knowledge.setdefault((model, arm.name, seed), {})[known.side] = targeted
    return knowledge


def _make_targets(
    forms: Forms, described: Described, stages: StageRunner, kept: Reducers | None
) -> dict[str, Targeted]:
    """Each model's targets; models that want the same share them."""
    made: dict[tuple[str | None, int | None], Targeted] = {}
    for settings, width in forms.values():
        if (settings.reduction, width) not in made:
            made[settings.reduction, width] = stages.run(
                targets,
                settings,
                described.embedded.embeddings,
                width,
                kept is not None,
                (kept or {}).get(_reducer_name(described.side, settings.reduction, width)),
                side=described.side,
            )
    return {model: made[form.reduction, width] for model, (form, width) in forms.items()}


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


def _by_shuffled_items(
    arm: Arm,
    seed: int,
    users: Described,
    described: Sequence[Described],
    splits: Splits,
    stages: StageRunner,
) -> Described:
    """Users as the mean of items that have each other's vectors."""
    items = next((known for known in described if known.side == "items"), None)
    if not users.pooled or items is None:
        raise BadInput(
            f"training.arms: {arm.name} is for users who are described by their items. Set "
            "profiles.provider to items and transfer.side to users, or remove the arm"
        )
    shuffled = stages.run(pooling, items.embedded, splits.train, seed, side="users")
    return users.model_copy(update={"embedded": shuffled})


def _features(
    arm: Arm, described: Described, pipeline: Pipeline, stages: StageRunner
) -> dict[str, Targeted]:
    """The whole embeddings of one side, for models that take them as features in this arm."""
    models = [model for model in pipeline.models if arm.suits(model, ())]
    if not arm.takes_whole or not models:
        return {}
    # Features stay as small as the model's own: text models give vectors of unit length.
    settings = pipeline.targets.model_copy(update={"reduction": "none", "scale": "none"})
    whole = stages.run(targets, settings, described.embedded.embeddings, None, side=described.side)
    return dict.fromkeys(models, whole)


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
