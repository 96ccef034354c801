"""Hyper-parameter search on validation: which keys an arm has, and a study that can be replayed.

A study follows from the seeds of sampler and split and the trials' scores, in order. Trials are
trainings, cached by content, so that a killed study gets the same scores again and goes on where
it stood. Every arm begins with the model's own settings, and draws a hyper-parameter that it shares
with another arm alike, so that no arm is ahead by the luck of its first trials.
"""

from collections.abc import Collection, Mapping, Sequence
from math import ceil
from statistics import median
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

from models.config import ARMS, ArmName, Search, Space, Transfer
from models.errors import BadInput
from models.experiments.grid import parts_of
from models.recommenders.hyperparameters import hyperparameters
from models.recommenders.registry import entry
from models.recommenders.search_spaces import shipped_space, strengths

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

_AUTO = Transfer()
_NO_TRIAL = cast("FrozenTrial", None)
"""Optuna's random sampler looks at none."""


def space_of(
    search: Search,
    model: str,
    arm: ArmName,
    held: Collection[str] = (),
    transfer: Transfer = _AUTO,
) -> dict[str, Space]:
    """Pick the part of the space that concerns one arm: a baseline has no knowledge's settings.

    Where the search names no space, the model's own holds, without the keys in `held`. The
    strength is searched beside other keys wherever `transfer.alpha` is auto.
    """
    given = transfer if ARMS[arm].takes == "targets" else None
    choices = strengths(model, given)
    if not search.space:
        shipped = shipped_space(model, given)
        free = {key: space for key, space in shipped.items() if not _is_held(key, model, held)}
        return free | choices
    space = {key: space for key, space in search.space.items() if _concerns(key, model, arm)}
    if not space or {"transfer.alpha", *choices} & set(space):
        return space
    return space | choices


def _is_held(key: str, model: str, held: Collection[str]) -> bool:
    """Whether a key, or a section that it is in, is in `held`, the model's own or that of all."""
    names = (key, key.removeprefix(f"models.{model}."))
    return any(f"{name}.".startswith(f"{other}.") for name in names for other in held)


def _concerns(key: str, model: str, arm: ArmName) -> bool:
    head, *rest = parts_of(key)
    takes = ARMS[arm].takes
    if head == "models":
        return rest[:1] == [model] and (takes != "nothing" or rest[1:2] == ["hyperparameters"])
    if head == "kar":
        return takes == "features"
    if head == "llm_cf":
        return takes == "examples"
    if head in ("transfer", "targets"):
        return takes == "targets"
    return takes != "nothing"


def require_equal_trials(search: Search, arms: Sequence[tuple[str, ArmName]]) -> None:
    """Refuse a space that leaves an arm without trials where its model's other arms have some.

    `arms` are model and arm of all that will be trained. BadInput names the arm; or a model in the
    space that is not trained.
    """
    models = {model for model, _ in arms}
    for key in search.space:
        head, *rest = parts_of(key)
        if head == "models" and (not rest or rest[0] not in models):
            raise BadInput(
                f"search.space.{key}: the experiment trains no such model. Set one of "
                f"{', '.join(sorted(models))}."
            )
    if not search.space:
        return
    searched = {pair for pair in arms if space_of(search, *pair)}
    for model, arm in arms:
        others = [other for m, other in arms if m == model and (m, other) in searched]
        if (model, arm) not in searched and (others or entry(model).loader is not None):
            raise BadInput(
                f"search.space has nothing for {model} {arm}, so that it would have fewer trials "
                f"than {', '.join(others) or 'the other models'}. Add "
                f"models.{model}.hyperparameters.…."
            )


def start_of(space: Mapping[str, Space], model: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters that a model has without a search, as far as they are in the space.

    A number outside its range is moved to the range's end. A choice that is not offered, a range in
    steps and what belongs to the transfer are left out.
    """
    head = f"models.{model}.hyperparameters."
    own = {head + name: value for name, value in hyperparameters(model, given).items()}
    start = {}
    for key in space.keys() & own.keys():
        value, choices, low, high = own[key], space[key].choices, space[key].low, space[key].high
        if choices is not None and value in choices:
            start[key] = value
        elif low is None or high is None or space[key].step is not None:
            continue
        elif isinstance(value, int | float):  # some have None, for no limit
            start[key] = min(max(value, low), high)
    return start


class Study:
    """The trials of one arm, one after the other: ask, train, tell.

    The first is the `start`, from `start_of`; the rest of the first third is random.
    """

    def __init__(
        self,
        search: Search,
        space: Mapping[str, Space],
        start: Mapping[str, Any],
        split_seed: int,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._search, self._space = search, space
        self._distributions = {key: _distribution(space[key]) for key in sorted(space)}
        random = ceil(search.trials / 3)
        seed = f"{search.seed} of split {split_seed}"
        sampler = optuna.samplers.TPESampler(seed=crc32(seed.encode()), n_startup_trials=random)
        self._study: OptunaStudy = optuna.create_study(direction="maximize", sampler=sampler)
        self._short: list[float] = []
        draws = {
            key: optuna.samplers.RandomSampler(crc32(f"{seed}: {key}".encode())) for key in space
        }
        drawn = [
            {
                key: draws[key].sample_independent(self._study, _NO_TRIAL, key, distribution)
                for key, distribution in self._distributions.items()
            }
            for _ in range(random)
        ]
        drawn[0] |= {key: _offered(space[key], value) for key, value in start.items()}
        for setting in drawn:
            self._study.enqueue_trial(setting)

    def ask(self) -> dict[str, Any]:
        """Choose the next setting to try, by dotted key; the one before must have ended."""
        self._trial: Trial = self._study.ask(self._distributions)
        params = self._trial.params
        return {key: _chosen(self._space[key], value) for key, value in params.items()}

    def prune(self, short: float) -> bool:
        """Decide by a short training's score whether the trial is not worth its full training.

        If so, it has ended, with that score.
        """
        from optuna.trial import TrialState

        before = list(self._short)
        self._short.append(short)
        if self._search.pruning == "none" or not before or short >= median(before):
            return False
        self._trial.report(short, step=self._search.pruning_epochs)
        self._study.tell(self._trial, state=TrialState.PRUNED)
        return True

    def tell(self, score: float | None) -> None:
        """End the trial with its score on validation; None where training failed."""
        from optuna.trial import TrialState

        failed = TrialState.FAIL if score is None else None
        self._study.tell(self._trial, score, state=failed)


def _distribution(space: Space) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if space.choices is not None:
        return CategoricalDistribution(range(len(space.choices)))
    assert space.low is not None
    assert space.high is not None
    if space.whole and (space.step is None or isinstance(space.step, int)):
        step = int(space.step or 1)
        return IntDistribution(int(space.low), int(space.high), log=space.log, step=step)
    return FloatDistribution(space.low, space.high, log=space.log, step=space.step)


def _chosen(space: Space, value: Any) -> Any:
    """Optuna has choices by number, so that they may be lists."""
    return value if space.choices is None else space.choices[value]


def _offered(space: Space, value: Any) -> Any:
    """The number of a choice."""
    return value if space.choices is None else space.choices.index(value)
