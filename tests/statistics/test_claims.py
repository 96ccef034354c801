"""Chains of claims: shares of the level, blocked and ended chains, and their declaration."""

import numpy as np
import pytest

from models.config import Claims
from models.statistics.claims import Decision, Evidence, decide, declare, verdict


def chain(*p_values):
    """Steps by p-value; negative ones are of the wrong sign, None is undecided."""
    return [Evidence(None if p is None else abs(p), p is None or p > 0) for p in p_values]


def rejected(*chains):
    return [[each.rejected for each in found] for found in decide([chain(*one) for one in chains])]


@pytest.mark.parametrize(
    ("chains", "expected"),
    [
        ([(0.04, 0.04, 0.04)], [[True, True, True]]),
        ([(0.06, 0.001, 0.001)], [[False, False, False]]),
        ([(0.03, 0.06, 0.001)], [[True, False, False]]),
        # Two chains: each has half until the other has ended.
        ([(0.04,), (0.04,)], [[False], [False]]),
        ([(0.02,), (0.04,)], [[True], [True]]),
        ([(0.02, 0.03), (0.04,)], [[True, False], [False]]),
        ([(0.02, 0.02), (0.04, 0.04)], [[True, True], [True, True]]),
        # Worse is a verdict of step A; it ends the chain, which passes its share on.
        ([(-0.02, 0.001), (0.04,)], [[True, False], [True]]),
        ([(0.02, -0.001), (0.04,)], [[True, False], [False]]),
        # An undecided head blocks its chain and keeps its share.
        ([(None, 0.001), (0.04,)], [[False, False], [False]]),
        ([(None, 0.001), (0.02,)], [[False, False], [True]]),
        ([(), (0.04,)], [[], [True]]),
        ([], []),
    ],
)
def test_what_is_rejected(chains, expected):
    assert rejected(*chains) == expected


def test_one_step_chains_are_holms():
    # Sorted .01 .02 .03 .5 times 4 3 2 1: .04 .06 .06 .5.
    found = decide([chain(p) for p in (0.03, 0.5, 0.01, 0.02)])
    assert [each.p_adjusted for (each,) in found] == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert [each.level for (each,) in found] == pytest.approx(
        [0.05 / 3, 0.05 / 3, 0.0125, 0.05 / 3]
    )


def test_an_adjusted_p_is_the_smallest_level_that_rejects():
    generator = np.random.default_rng(1)
    for _ in range(300):
        chains = [
            chain(*(generator.choice([-1, 1, 1]) * generator.random(generator.integers(1, 4)) ** 3))
            for _ in range(generator.integers(1, 5))
        ]
        for level in (0.01, 0.05, 0.3):
            for steps, of_chain in zip(decide(chains, level), chains, strict=True):
                for decision, evidence in zip(steps, of_chain, strict=True):
                    if decision.p_adjusted is not None:
                        assert decision.rejected == (decision.p_adjusted < level)
                        # What p says at the level of the test, so does its interval.
                        agrees = decision.rejected == (evidence.p < decision.level)
                        assert agrees or not evidence.positive
                    else:
                        assert not decision.rejected


def test_verdicts_in_words():
    gain, loss, none = Evidence(0.2, True), Evidence(0.01, False), Evidence(None, False)
    tested = Decision(level=0.05, p_adjusted=0.2)
    assert verdict("A", gain, Decision(True, 0.05, 0.01)) == "better"
    assert verdict("A", loss, Decision(True, 0.05, 0.01)) == "worse"
    assert verdict("A", gain, tested) == "no detectable difference"
    assert verdict("B", gain, tested) == "not above every control"
    assert verdict("C", loss, tested) == "not above the best reference"
    assert verdict("B", gain, Decision()) == "not tested: not above the baseline"
    assert verdict("C", gain, Decision()) == "not tested: a step before failed"
    assert verdict("B", none, Decision()).startswith("not tested: ")


ARMS = [
    *(("BPR", arm) for arm in ("baseline", "transfer", "shuffled", "noise")),
    *(("EASE", "baseline"), ("EASE", "transfer"), ("Pop", "baseline")),
]
VALID = {(None, "BPR"): 0.9, (None, "EASE"): 0.5, (None, "Pop"): 0.2}


def steps(config=None, arms=ARMS, valid=VALID):
    chains = declare(Claims.model_validate(config or {}), {None: arms}, valid)
    return {each.model: dict(each.steps) for each in chains}


def test_the_default_family_has_a_chain_per_model_with_knowledge():
    assert steps() == {
        "BPR": {"A": ("baseline",), "B": ("shuffled", "noise"), "C": ("EASE",)},
        "EASE": {"A": ("baseline",)},  # no control: it ends early
    }
    # One reference, the best on validation; none other than the model itself: it ends early.
    assert steps(valid=VALID | {(None, "Pop"): 0.6})["BPR"]["C"] == ("Pop",)
    assert steps(arms=ARMS[:4])["BPR"].keys() == {"A", "B"}


def test_a_family_can_be_declared():
    named = {
        "models": ["EASE"],
        "steps": ["own-baseline", "reference"],
        "references": ["BPR", "Pop"],
    }
    assert steps(named) == {"EASE": {"A": ("baseline",), "C": ("BPR",)}}
    assert steps({"controls": ["noise"]})["BPR"]["B"] == ("noise",)
    with pytest.raises(ValueError, match="does not begin with own-baseline"):
        Claims(steps=("controls",))


def test_several_points_are_a_sweep_unless_they_are_named():
    points = {"a": ARMS, "b": ARMS}
    valid = {(point, model): value for point in points for (_, model), value in VALID.items()}
    assert declare(Claims(), points, valid) == ()
    assert declare(Claims(), {"a": ARMS}, valid)[0].point == "a"
    found = declare(Claims(points=("b",)), points, valid)
    assert {each.point for each in found} == {"b"}
