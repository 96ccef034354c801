"""Power foreseen from variances agrees with the share of simulated experiments that find a gain."""

import math

import numpy as np
import pytest

from models.statistics.paired_comparison import compare
from models.statistics.power import Variances


def drawn(generator, replicates, users=200, luck=0.007):
    return (
        generator.normal(0, luck, (replicates, 1))
        + generator.normal(0, 0.05, (1, users))
        + generator.normal(0, 0.15, (replicates, users))
    )


@pytest.mark.parametrize("replicates", [5, 10])
def test_what_is_called_detectable_is_found_in_about_80_of_100_draws(replicates):
    generator = np.random.default_rng(replicates)
    gain = Variances(0.007**2, 0.05**2, 0.15**2, 200).detectable(replicates, 0.05)
    found = [
        compare(drawn(generator, replicates) + gain, np.zeros((replicates, 200))).p_value < 0.05
        for _ in range(300)
    ]
    assert 0.72 <= np.mean(found) <= 0.9


def test_components_are_those_of_the_draws():
    estimates = [Variances.of(drawn(np.random.default_rng(n), 10, luck=0.02)) for n in range(40)]
    mean = {
        name: float(np.mean([getattr(each, name) for each in estimates]))
        for name in ("replicates", "users", "rest")
    }
    assert mean == pytest.approx(
        {"replicates": 0.02**2, "users": 0.05**2, "rest": 0.15**2}, rel=0.25
    )


def test_needed_is_the_fewest_that_suffice():
    variances = Variances(0.007**2, 0.05**2, 0.15**2, 943)
    needed = variances.needed(0.01, 0.05)
    assert variances.detectable(needed, 0.05) <= 0.01 < variances.detectable(needed - 1, 0.05)
    assert variances.needed(1e-6, 0.05) is None
    assert variances.detectable(1, 0.05) == math.inf  # one training of a stochastic model
    closed_form = Variances.of(np.repeat(drawn(np.random.default_rng(1), 1), 3, axis=0))
    assert closed_form.detectable(1, 0.05) == pytest.approx(closed_form.detectable(3, 0.05))
