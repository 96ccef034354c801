"""Searches of all points and arms: trials one after the other in each, side by side in the pool."""

import json
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from flows.steps.knowledge import sides_of
from flows.steps.preparation import Request, arms_of, load_data, prepare, split_data, taps_of
from flows.steps.stage_runner import NotCached, StageRunner
from flows.steps.trainings import Result, TrainingPool
from models.config import ArmName, Experiment, Pipeline, Search, Space
from models.errors import BadInput, Unavailable
from models.experiments.search import Study, require_equal_trials, space_of, start_of
from models.recommenders.registry import entry
from tasks.config.experiment_file import ExperimentPoint, LoadedExperiment
from tasks.evaluation.inputs import Trial, TrialState
from tasks.execution.cache_key import digest
from tasks.results.queries import Tried
from tasks.training.outputs import Trained
from tasks.training.tap_points import TapPoints

_SAMPLING = 2
"""Raise where `Study` chooses other trials, which are then none of an earlier search's."""

Steps = Generator[Request, Result, None]
"""Yields trainings and is sent their results."""


@dataclass
class ArmSearch:
    """One point's search for one model and arm, which leaves the `fixed` values alone.

    `problem` is the error of the last failed trial.
    """

    chosen: ExperimentPoint
    model: str
    arm: ArmName
    search: Search
    space: Mapping[str, Space]
    fixed: Mapping[str, Any]
    trials: list[Trial] = field(default_factory=list)
    problem: str | None = None

    def best(self) -> Trial | None:
        """The best complete trial, the earliest of equals; None where all failed."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        return max(complete, key=lambda one: (one.valid_score or 0.0, -one.trial), default=None)

    def tried(self, earlier: Collection[Tried]) -> int:
        """How many settings this arm has had, with the trials of earlier searches."""
        own = (self.chosen.name, self.model, self.arm)
        now = {(*own, trial.search, trial.trial) for trial in self.trials}
        return len(now | {trial for trial in earlier if trial[:3] == own})

    @cached_property
    def name(self) -> str:
        """16 hex digits over what is searched: a longer search of the same goes on with it."""
        base = self.chosen.varied(self.model, self.arm, self.fixed)
        searched = self.search.model_dump(exclude={"trials"})
        return digest({"search": searched, "base": base, "sampling": _SAMPLING})

    def best_pipeline(self) -> Pipeline:
        """The pipeline with the best setting, for all seeds; BadInput if every trial failed."""
        best = self.best()
        if best is None:
            raise BadInput(
                f"all {len(self.trials)} trials of {self.model} {self.arm} failed, the last with: "
                f"{self.problem}"
            )
        return self.chosen.varied(self.model, self.arm, json.loads(best.params))

    def marked_trials(self) -> list[Trial]:
        """The trials, the best marked."""
        best = self.best()
        return [trial.model_copy(update={"is_best": trial == best}) for trial in self.trials]

    def steps(self, stages: StageRunner) -> Steps:
        """All trials in turn. Nothing here reads the test part, or a score on it."""
        pipeline = self.chosen.varied(self.model, self.arm, self.fixed)
        given = pipeline.models[self.model].hyperparameters
        start = start_of(self.space, self.model, given)
        study = Study(self.search, self.space, start, pipeline.split.seed)
        prunes = self.search.pruning != "none" and entry(self.model).loader is not None
        for _ in range(self.search.trials):
            setting = {**self.fixed, **study.ask()}
            score: float | None = None
            pruned = False
            try:
                if prunes:  # what is computed takes no longer whole
                    short = yield self._request(stages, setting, self.search.pruning_epochs)
                    score = self._score(short)
                    pruned = score is not None and study.prune(score)
                if not pruned:
                    score = self._score((yield self._request(stages, setting)))
                    study.tell(score)
            except (NotCached, Unavailable):
                raise
            except Exception as error:  # one setting's fault; the others go on
                self.problem, score = str(error), None
                study.tell(None)
            state: TrialState = "pruned" if pruned else "failed" if score is None else "complete"
            self.trials.append(
                Trial(
                    point=self.chosen.name,
                    model=self.model,
                    arm=self.arm,
                    trial=len(self.trials),
                    params=json.dumps(setting, sort_keys=True),
                    search=self.name,
                    valid_score=score,
                    state=state,
                )
            )

    def _request(
        self, stages: StageRunner, setting: Mapping[str, Any], epochs: int | None = None
    ) -> Request:
        """One trial's training: the first seed, with the setting."""
        seed = self.chosen.pipeline.training.seeds[0]
        budget = {} if epochs is None else {"epochs": epochs, "transfer_epochs": None}
        pipeline = self.chosen.varied(self.model, self.arm, setting, seeds=[seed], **budget)
        (request,) = prepare(pipeline, stages, weights="dropped").requests
        return request

    def _score(self, result: Result) -> float | None:
        """The best epoch's score on validation."""
        if isinstance(result, Trained):
            return result.epochs[result.best_epoch].valid_score
        self.problem = str(result)
        return None


def searches_of(loaded: LoadedExperiment, stages: StageRunner) -> list[ArmSearch]:
    """The searches of all points, one per model and arm, after a check of every point's models.

    A model that the search space leaves out has none.

    Raises:
        BadInput: naming file and point, if a model or its tap is wrong, if arms would have unequal
            numbers of trials, if the space holds what makes no pipeline, or if the data of a search
            are at fault, which is no trial's.
    """
    searches = []
    for chosen in loaded.points:
        try:
            taps = taps_of(chosen.pipeline, stages)
            if loaded.config.search is not None:
                _look_at_data(chosen.pipeline, taps, stages)
        except BadInput as error:
            raise BadInput(f"{chosen.where}: {error}") from error
        if loaded.config.search is not None:
            searches += _searches_of_point(chosen, loaded.config, stages)
    return searches


def _look_at_data(pipeline: Pipeline, taps: TapPoints, stages: StageRunner) -> None:
    fields = pipeline.demographics(sides_of(pipeline, taps))
    with suppress(NotCached):  # a dry run sees what it can
        split_data(pipeline, load_data(pipeline, stages, fields), stages)


def _searches_of_point(
    chosen: ExperimentPoint, config: Experiment, stages: StageRunner
) -> list[ArmSearch]:
    search, trained = config.search, chosen.pipeline.trained_here
    assert search is not None
    settled_arms = _settled_arms(chosen, config.settings, stages)
    arms = [pair for pair in settled_arms if pair[0] in trained]
    try:
        require_equal_trials(search, arms)
    except BadInput as error:
        raise BadInput(f"{chosen.file}: {error}") from error
    searches = []
    for model, arm in arms:
        fixed = config.settings.get(model, {}).get(arm, {})
        transfer = chosen.varied(model, arm, fixed).transfer_of(model)
        space = space_of(search, model, arm, {*chosen.point.overrides, *fixed}, transfer)
        for end in (0, -1) if space else ():
            ends = {
                key: values.choices[end] if values.choices else (values.low, values.high)[end]
                for key, values in space.items()
            }
            taps_of(chosen.varied(model, arm, {**fixed, **ends}), stages)
        if space:
            searches.append(ArmSearch(chosen, model, arm, search, space, fixed))
    return searches


def settled(
    chosen: ExperimentPoint, settings: Mapping[str, Mapping[ArmName, Any]], stages: StageRunner
) -> list[Pipeline]:
    """Return a point's pipelines under fixed settings: one per model and arm, if there are any.

    Raises:
        BadInput: if the settings name a model or an arm that the point does not have, or make no
            pipeline.
    """
    if not settings:
        return [chosen.pipeline]
    arms = _settled_arms(chosen, settings, stages)
    return [chosen.varied(model, arm, settings.get(model, {}).get(arm, {})) for model, arm in arms]


def _settled_arms(
    chosen: ExperimentPoint, settings: Mapping[str, Mapping[ArmName, Any]], stages: StageRunner
) -> list[tuple[str, ArmName]]:
    """The point's models and arms, all of the settings' among them."""
    own = arms_of(chosen.pipeline, stages)
    own_arms = {model for model, row in chosen.pipeline.models.items() if row.arms is not None}
    given = {(model, arm) for model in settings.keys() - own_arms for arm in settings[model]}
    unknown = given - set(own)
    if unknown:
        named = ", ".join(f"{model} {arm}" for model, arm in sorted(unknown))
        raise BadInput(
            f"{chosen.file}: settings of {named}, which {chosen.name} does not train. Remove them, "
            "or add the model or the arm"
        )
    return own


def run_searches(searches: Sequence[ArmSearch], stages: StageRunner, pool: TrainingPool) -> None:
    """Run all trials; a search waits for its own last trial, never for another's."""
    waiting: dict[str, list[tuple[Steps, Request]]] = {}

    def advance(steps: Steps, request: Request) -> None:
        """Feed a search results that are there, until it needs one that is not."""
        while True:
            pool.start(request)
            result = pool.results.get(request.key)
            if result is None:
                waiting.setdefault(request.key, []).append((steps, request))
                return
            try:
                request = steps.send(result)
            except StopIteration:
                return

    for search in searches:
        steps = search.steps(stages)
        first = next(steps, None)
        if first is not None:
            advance(steps, first)
    while waiting:
        for steps, request in waiting.pop(pool.wait_for_one(), []):
            advance(steps, request)


def recall_searches(searches: Sequence[ArmSearch], stages: StageRunner) -> list[Request]:
    """Take each search as far as cached trials lead; the trainings at which they stopped."""
    stopped = []
    for search in searches:
        steps = search.steps(stages)
        try:
            request = next(steps)
            while (result := request.cached()) is not None:
                request = steps.send(result)
            stopped.append(request)
        except (StopIteration, NotCached):
            continue
    return stopped
