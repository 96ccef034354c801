"""Hyper-parameter search on validation: which keys an arm has, and a study that can be replayed.

A study is the sampler's seed and the scores it was told, in order. Trials are trainings, cached
by content, so that a study that was killed is told the same again and goes on where it stood.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from models.config import ARMS, ArmName, Search, Space
from models.errors import BadInput
from models.recommenders.registry import entry

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial


def space_of(search: Search, model: str, arm: ArmName) -> dict[str, Space]:
    """The part of the space that concerns one arm: no knowledge's settings for a baseline."""
    return {key: space for key, space in search.space.items() if _concerns(key, model, arm)}


def _concerns(key: str, model: str, arm: ArmName) -> bool:
    head, *rest = key.split(".")
    takes = ARMS[arm].takes
    if head == "models":
        is_own = rest[:1] == [model]
        return is_own and (takes != "nothing" or rest[1:2] == ["hyperparameters"])
    if head == "kar":
        return takes == "features"
    if head in ("transfer", "targets"):
        return takes == "targets"
    return takes != "nothing"


def require_equal_trials(search: Search, arms: Sequence[tuple[str, ArmName]]) -> None:
    """Refuse a space that leaves an arm without trials where its model's other arms have some.

    Args:
        search: the space.
        arms: model and arm of all that will be trained.

    Raises:
        BadInput: naming the arm; or a model in the space that is not trained.
    """
    models = {model for model, _ in arms}
    for key in search.space:
        head, *rest = key.split(".")
        if head == "models" and (not rest or rest[0] not in models):
            raise BadInput(f"search.space.{key}: the experiment trains no such model")
    searched = {pair for pair in arms if space_of(search, *pair)}
    for model, arm in arms:
        others = [of for m, of in arms if m == model and (m, of) in searched]
        if (model, arm) not in searched and (others or entry(model).loader is not None):
            raise BadInput(
                f"search.space has nothing for {model} {arm}, so that it would have fewer trials "
                f"than {', '.join(others) or 'the other models'}; add "
                f"models.{model}.hyperparameters.…"
            )


class Study:
    """The trials of one arm, one after the other: ask, train, tell."""

    def __init__(self, search: Search, space: Mapping[str, Space]) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._search, self._space = search, space
        self._distributions = {key: _distribution(space[key]) for key in sorted(space)}
        self._study: OptunaStudy = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=search.seed)
        )
        self._short: list[float] = []
        self._trial: Trial | None = None

    @property
    def asked(self) -> int:
        """How many trials were asked for."""
        return len(self._study.trials)

    def ask(self) -> dict[str, Any]:
        """The next setting to try, by dotted key; the one before must have been told."""
        self._trial = self._study.ask(self._distributions)
        params = self._trial.params
        return {key: _chosen(self._space[key], value) for key, value in params.items()}

    def prune(self, short: float) -> bool:
        """Whether the trial is not worth its full training, by the score of a short one.

        If so, it is over, with that score.
        """
        before = list(self._short)
        self._short.append(short)
        if self._search.pruning == "none" or not before or short >= median(before):
            return False
        self._over(short, pruned=True)
        return True

    def tell(self, score: float | None) -> None:
        """The score on validation of what was asked last; None where training failed."""
        self._over(score, pruned=False)

    def _over(self, score: float | None, pruned: bool) -> None:
        from optuna.trial import TrialState

        assert self._trial is not None
        if pruned:
            assert score is not None
            self._trial.report(score, step=self._search.pruning_epochs)
            self._study.tell(self._trial, state=TrialState.PRUNED)
        elif score is None:
            self._study.tell(self._trial, state=TrialState.FAIL)
        else:
            self._study.tell(self._trial, score)
        self._trial = None


def _distribution(space: Space) -> "BaseDistribution":
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if space.choices is not None:
        return CategoricalDistribution(range(len(space.choices)))
    assert space.low is not None
    assert space.high is not None
    if space.whole and (space.step is None or isinstance(space.step, int)):
        step = int(space.step or 1)
        return IntDistribution(int(space.low), int(space.high), log=space.log, step=step)
    return FloatDistribution(space.low, space.high, log=space.log, step=space.step)


def _chosen(space: Space, value: Any) -> Any:
    """Optuna knows choices by number, so that they may be lists."""
    return value if space.choices is None else space.choices[value]
