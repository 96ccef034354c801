"""One configuration file: one pipeline; and the single trainings that it asks for."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from models.config.arms import ARMS, BASELINE, SHUFFLED, Arm, ArmName
from models.config.dataset import Dataset
from models.config.embeddings import Embeddings
from models.config.evaluation import Evaluation, parse_metric
from models.config.nightly import Nightly
from models.config.profiles import ItemProfiles, Profiles
from models.config.runner import Dask, Runner
from models.config.section import SIDES, Name, Section, Side, unkeyed
from models.config.split import Split
from models.config.targets import Targets
from models.config.training import Budget, Model, Training
from models.config.transfer import Kar, LlmCf, Tap, Transfer
from models.errors import BadInput

Size = Literal["quick", "default", "thorough"]


class Pipeline(Section):
    """One configuration file: one pipeline, one comparison."""

    experiment: Name = Field(description="Name of the results.")
    preset: str | None = unkeyed(  # the settings that come of it decide
        None,
        description="Settings below those of this file: a name in configs/presets/ (as-published, "
        "corrected, pca, umap).",
    )
    size: Size = unkeyed(  # likewise
        "default",
        description="The amount of work: quick and thorough set epochs, patience, seeds, search "
        "trials and models where neither this file nor its preset sets them (configs/sizes/).",
    )
    dataset: Dataset = Dataset()
    split: Split = Split()
    profiles: Profiles = Profiles()
    item_profiles: ItemProfiles = ItemProfiles()
    embeddings: Embeddings = Embeddings()
    item_embeddings: Embeddings | None = Field(
        None, description="As `embeddings`, for items; empty: the same."
    )
    targets: Targets = Targets()
    models: dict[str, Model] = Field(
        min_length=1,
        description="By RecBole's names, or import paths of your own classes.",
    )
    transfer: Transfer = Transfer()
    kar: Kar = Kar()
    llm_cf: LlmCf = LlmCf()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    runner: Runner = unkeyed(
        "local",
        description="Where trainings and embeddings run: in processes of this machine, or on the "
        "workers of a Dask cluster.",
    )
    dask: Dask = unkeyed(Dask(), description="Used by `runner: dask` only.")
    nightly: Nightly = unkeyed(  # a comparison does not depend on it
        Nightly(), description="Used by `llmkt nightly` only."
    )

    @model_validator(mode="after")
    def _sections_fit_together(self) -> Self:
        for key, value in (
            ("training.valid_metric", self.training.valid_metric),
            ("evaluation.primary", self.evaluation.primary),
        ):
            if parse_metric(value) not in self.evaluation.columns():
                raise ValueError(
                    f"{key} is {value}, but evaluation.metrics and evaluation.k do not compute it"
                )
        for name in self.models:
            self.transfer_of(name)  # refuses overrides that are not valid
            for key, own in (("arms", self.arms_of(name)), ("seeds", self.seeds_of(name))):
                if not own:
                    raise ValueError(f"models.{name}.{key}: none is in training.{key}. Add one")
        if self.dataset.feedback == "counts" and self.evaluation.like_from is not None:
            raise ValueError(
                "evaluation.like_from: dataset.feedback is counts, so nothing is liked. "
                "Leave it empty"
            )
        if BASELINE not in self.training.arms and len(self.trained_here) < len(self.models):
            raise ValueError(
                "training.arms: rankings made elsewhere stand as a baseline. Add baseline, or "
                "leave out the models with rankings"
            )
        if self.nightly.model is not None and self.nightly.model not in self.trained_here:
            raise ValueError(
                f"nightly.model is {self.nightly.model}, but models has "
                f"{', '.join(self.trained_here)}"
            )
        return self

    def tonight(self) -> "Pipeline":
        """The pipeline of the nightly flow: its split, and one training."""
        if not self.trained_here:
            raise BadInput("models: all have rankings, so none is trained. Add one to publish.")
        model = self.nightly.model or self.trained_here[0]
        own = self.models[model].model_copy(update={"arms": None, "seeds": None})
        one = {"arms": (self.nightly.arm,), "seeds": (self.nightly.seed,), "workers": 1}
        return self.model_copy(
            update={
                "split": self.nightly.split,
                "models": {model: own},
                "training": self.training.model_copy(update=one),
            }
        )

    @property
    def trained_here(self) -> list[str]:
        """The models without `rankings`."""
        return [name for name, model in self.models.items() if model.rankings is None]

    def with_controls(self) -> "Pipeline":
        """Tonight's pipeline with what says whether knowledge helps, all on equal terms."""
        nightly, training = self.nightly, self.training
        epochs = training.budget(nightly.arm).epochs
        same = {"arms": (BASELINE, nightly.arm, SHUFFLED), "epochs": epochs}
        return self.model_copy(
            update={
                "training": training.model_copy(update=same),
                "nightly": nightly.model_copy(update={"start": "cold"}),
            }
        )

    def profiles_of(self, side: Side) -> Profiles:
        """The section that says how a side's profiles are written."""
        section = self.profiles if side == "users" else self.item_profiles
        history = section.history.model_copy(update={"feedback": self.dataset.feedback})
        return section.model_copy(update={"history": history})

    def demographics(self, sides: Sequence[Side] = SIDES) -> tuple[str, ...]:
        """The user fields that prompts of these sides may tell an LLM."""
        asks = "users" in sides and self.profiles.asks
        return self.profiles.history.demographics if asks else ()

    def sees_all(self, side: Side) -> bool:
        """Whether a side's profiles are written from held-out interactions, too."""
        return self.profiles_of(side).interactions == "all"

    def embeddings_of(self, side: Side) -> Embeddings:
        """The section that says how a side's profiles are embedded."""
        return self.embeddings if side == "users" else self.item_embeddings or self.embeddings

    def jobs(self, taps: Mapping[str, Mapping[Side, Tap | None]]) -> "list[Job]":
        """List all trainings; a model that knowledge cannot enter has its baseline alone.

        `taps` has the tap per model and side; None where a model takes the embedding itself.
        """
        return [
            Job.of(self, model, arm.name, seed, sides)
            for model, sides in taps.items()
            for arm in self.arms_of(model)
            for seed in self.seeds_of(model)
            if arm.suits(model, sides)
        ]

    def arms_of(self, model: str) -> tuple[Arm, ...]:
        """The rows of `ARMS` that `model` is trained with."""
        own = self.models[model].arms
        return tuple(arm for arm in self.training.arm_rows if own is None or arm.name in own)

    def takes_knowledge(self, model: str) -> bool:
        """Whether an arm of `model` takes any."""
        return any(arm.takes != "nothing" for arm in self.arms_of(model))

    def seeds_of(self, model: str) -> tuple[int, ...]:
        """The seeds that `model` is trained with."""
        own = self.models[model].seeds
        return tuple(seed for seed in self.training.seeds if own is None or seed in own)

    def targets_of(self, model: str) -> Targets:
        """The `targets` section as it holds for `model`, its reduction settled."""
        bridging = self.transfer_of(model).method.bridges
        reduction = self.targets.reduction or ("none" if bridging else "umap")
        return self.targets.model_copy(update={"reduction": reduction})

    def transfer_of(self, model: str) -> Transfer:
        """The `transfer` section as it holds for `model`, its overrides applied."""
        given, own = self.transfer.model_dump(), self.models[model].transfer
        nested = {key: given[key] | value for key, value in own.items() if isinstance(value, dict)}
        return Transfer.model_validate(given | own | nested)


class Job(Section):
    """One training: everything that decides its result but the data.

    A baseline has neither transfer nor taps, and so stays cached when those change.
    """

    model: str
    arm: ArmName
    seed: int
    hyperparameters: dict[str, Any]
    transfer: Transfer | None
    taps: dict[Side, Tap | None]
    kar: Kar | LlmCf | None = Field(description="The comparator that takes whole embeddings.")
    budget: Budget
    k: int = Field(description="Length of the rankings.")
    candidates: Literal["all", "new"] = "all"
    like_from: float | None = Field(None, description="As in evaluation, like `candidates`.")

    @property
    def sides(self) -> tuple[Side, ...]:
        """Whose profiles the training is given."""
        return SIDES if self.kar else tuple(self.taps)

    @classmethod
    def of(
        cls,
        pipeline: Pipeline,
        model: str,
        arm: ArmName,
        seed: int,
        taps: Mapping[Side, Tap | None],
    ) -> Self:
        """The job of one model, arm and seed of a pipeline."""
        takes = ARMS[arm].takes
        whole = {"features": pipeline.kar, "examples": pipeline.llm_cf}.get(takes)
        return cls(
            model=model,
            arm=arm,
            seed=seed,
            hyperparameters=pipeline.models[model].given,
            transfer=pipeline.transfer_of(model).committed(model) if takes == "targets" else None,
            taps=dict(taps) if takes == "targets" else {},
            kar=whole and whole.model_copy(update=ARMS[arm].settings),
            budget=pipeline.training.budget(arm),
            k=max(pipeline.evaluation.k),
            candidates=pipeline.evaluation.candidates,
            like_from=pipeline.evaluation.like_from,
        )
