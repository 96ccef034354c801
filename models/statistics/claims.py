"""Which comparisons are claims, and their verdicts: chains of tests with one error rate.

A family is declared before test is scored. It has one chain per model, on the primary metric:

- A: knowledge against its own baseline,
- B: above every control of its kind, targets or features; p is the largest of the controls'
  (intersection-union test; Berger, Technometrics 24, 1982),
- C: above one reference, chosen on validation.

Each unfinished chain has an equal share of the level. A rejection moves its chain to the next step;
a chain that ends passes its share on. This is a graphical procedure (Bretz, Maurer, Brannath &
Posch, Statistics in Medicine 28, 2009), so that the chance of any false claim is at most 5 %.
`benchmarks/verdicts.py` simulates it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from models.config import ARMS, BASELINE, Claims
from models.recommenders.registry import reference_models

LEVEL = 0.05
"""Family-wise error over all claims of a family."""

BETTER = "better"
WORSE = "worse"
NO_DIFFERENCE = "no detectable difference"
NO_TRANSFER = "no transfer chosen"
ONE_SEED = "one seed"
UNDECIDED = f"{ONE_SEED}: undecided"
NOT_TESTED = "not tested"
NOT_ABOVE = "not above"

Step = Literal["A", "B", "C"]
_FAILED = {
    "A": NO_DIFFERENCE,
    "B": f"{NOT_ABOVE} every control",
    "C": f"{NOT_ABOVE} the best reference",
}
_BEFORE = {"B": "not above the baseline", "C": "a step before failed"}


@dataclass(frozen=True)
class Chain:
    """The claims about one model and arm, in their order.

    Attributes:
        model: whose claims.
        arm: the one with knowledge.
        point: of an experiment; None without points.
        steps: what the arm is compared with at each step, such as
            `{"A": ("baseline",), "B": ("shuffled", "noise"), "C": ("EASE",)}`.
    """

    model: str
    arm: str
    point: str | None
    steps: Mapping[Step, tuple[str, ...]]

    def step_of(self, arm: str, against: str) -> Step | None:
        """The step at which the model's `arm` is compared with `against`, if any."""
        if arm != self.arm:
            return None
        return next((step for step, others in self.steps.items() if against in others), None)


def declare(
    config: Claims,
    points: Mapping[str | None, Collection[tuple[str, str]]],
    valid: Mapping[tuple[str | None, str], float],
) -> tuple[Chain, ...]:
    """List an experiment's claims, from its configuration and validation alone.

    Several points are a sweep: nothing is claimed about them, unless `config.points` names some.
    `points` has model and arm of all runs, by point, `valid` the validation score of each model's
    baseline.
    """
    claimed = config.points if config.points is not None else tuple(points)[: len(points) == 1]
    chains = []
    for point in claimed:
        arms = dict.fromkeys(points.get(point, ()))  # in the order of training
        references = config.references or reference_models(arms)
        known = [model for model in references if (point, model) in valid]
        best = max(known, key=lambda model: valid[point, model], default=None)
        for model, arm in arms:
            if ARMS[arm].is_treatment and model in (config.models or (model,)):
                alike = [name for name, row in ARMS.items() if row.takes == ARMS[arm].takes]
                ran = [name for name in alike if ARMS[name].is_control and (model, name) in arms]
                others = {
                    "own-baseline": (BASELINE,),
                    "controls": config.controls if config.controls is not None else tuple(ran),
                    "reference": (best,) if best and best != model else (),
                }
                chains.append(Chain(model, arm, point, _steps(config, others)))
    return tuple(chains)


def _steps(config: Claims, others: Mapping[str, tuple[str, ...]]) -> dict[Step, tuple[str, ...]]:
    """Number the steps; the chain ends before the first one without anything to compare with."""
    names: dict[str, Step] = {"own-baseline": "A", "controls": "B", "reference": "C"}
    steps: dict[Step, tuple[str, ...]] = {}
    for name in config.steps:
        if not others[name]:
            break
        steps[names[name]] = others[name]
    return steps


@dataclass(frozen=True)
class Evidence:
    """One step's evidence.

    Attributes:
        p: two-sided; None where nothing is decided, which blocks the chain.
        positive: whether the difference has the claimed sign.
    """

    p: float | None
    positive: bool


@dataclass(frozen=True)
class Decision:
    """What became of one step.

    Attributes:
        rejected: whether its null hypothesis is; at step A in either direction.
        level: at which it was tested; None if it was not.
        p_adjusted: the smallest family-wise error at which it would be rejected.
    """

    rejected: bool = False
    level: float | None = None
    p_adjusted: float | None = None


def decide(chains: Sequence[Sequence[Evidence]], level: float = LEVEL) -> list[list[Decision]]:
    """Test a family of chains with an error of at most `level`; a decision for every step.

    Each chain has the evidence of its steps, in order; the first one is two-sided.
    """
    found = [[Decision()] * len(chain) for chain in chains]
    heads = {place: 0 for place, chain in enumerate(chains) if chain}
    stopped: dict[int, int] | None = None
    p_adjusted = 0.0
    while ready := _rejectable(chains, heads):
        p, place = min(ready)
        step, share = heads[place], level / len(heads)
        p_adjusted = max(p_adjusted, min(1.0, p * len(heads)))
        if stopped is None and p_adjusted < level:
            found[place][step] = Decision(True, share, p_adjusted)
        elif stopped is None:
            stopped = dict(heads)
        if stopped is not None and stopped.get(place) == step:
            found[place][step] = Decision(False, level / len(stopped), p_adjusted)
        _advance(chains, heads, place)
    for place, step in (heads if stopped is None else stopped).items():
        at = level / len(heads if stopped is None else stopped)
        test, decision = chains[place][step], found[place][step]
        if test.p is not None and decision.p_adjusted is None:  # not of the claimed sign
            found[place][step] = Decision(False, at, 1.0)
    return found


def _rejectable(
    chains: Sequence[Sequence[Evidence]], heads: Mapping[int, int]
) -> list[tuple[float, int]]:
    """P-value and chain of every head that some level would reject."""
    tests = [(chains[place][step], place, step) for place, step in heads.items()]
    return [
        (test.p, place)
        for test, place, step in tests
        if test.p is not None and (test.positive or step == 0)
    ]


def _advance(chains: Sequence[Sequence[Evidence]], heads: dict[int, int], place: int) -> None:
    """Move a chain on after a rejection; it ends after its last step, and where it is worse."""
    step = heads[place]
    if not chains[place][step].positive or step + 1 == len(chains[place]):
        del heads[place]
    else:
        heads[place] = step + 1


def verdict(step: Step, test: Evidence, decision: Decision) -> str:
    """The verdict on the comparisons of one step."""
    if decision.rejected:
        return BETTER if test.positive else WORSE
    if decision.level is None and test.p is not None:
        return f"{NOT_TESTED}: {_BEFORE[step]}"
    if test.p is None:
        return f"{NOT_TESTED}: a comparison of this step decides nothing"
    return _FAILED[step]
