"""Guardrails: a table of nights, and what each breaches."""

import pytest

from models.config import Nightly
from models.publishing.guardrails import breaches

USUAL = {
    "champion_version": "1",
    "users_known": 100,
    "users_by_model": 100,
    "coverage": 0.4,
    "tail_share": 0.2,
    "list_overlap": 0.6,
    "cold_difference": 0.0,
    "cold_ci_high": 0.01,
    "anchor_version": "0",
    "anchor_difference": 0.0,
    "anchor_ci_low": -0.01,
    "profile_drift": 0.002,
    "new_interactions": 1000,
}
BEFORE = [USUAL] * 6


def found(row: dict, before=BEFORE, **limits) -> list[str]:
    rule = Nightly.model_validate({"tolerance": 0.01, "guardrails": limits})
    return list(breaches(rule, USUAL | row, USUAL, before))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({}, None),
        ({"users_by_model": 98}, None),  # two points are allowed
        ({"users_by_model": 97}, "share of users served by the model 0.970 is below 0.980"),
        ({"coverage": 0.19}, "coverage 0.190 is below 0.200"),
        ({"tail_share": 0.05}, "tail share 0.050 is below 0.100"),
        ({"list_overlap": 0.05}, "overlap with yesterday's lists 0.050 is below 0.100"),
        (
            {"cold_difference": -0.03, "cold_ci_high": -0.011},
            "coldest quarter of users loses −0.03",
        ),
        ({"cold_difference": -0.03, "cold_ci_high": -0.009}, None),  # not with certainty
        ({"anchor_difference": -0.015, "anchor_ci_low": -0.021}, "to the anchor 0, −0.0150"),
        ({"profile_drift": 0.0099}, None),  # five times next to nothing is nothing
        ({"profile_drift": 0.02}, "profile drift: 0.02, where 0.002 is usual"),
        ({"new_interactions": 99}, "new interactions: 99, where 1000 is usual"),
        ({"new_interactions": 10001}, "new interactions: 10001, where 1000 is usual"),
        (dict.fromkeys(set(USUAL) - {"new_interactions"}), None),  # what was not measured
    ],
)
def test_each_guardrail(row, words):
    breached = found(row)
    assert breached == [] if words is None else words in breached[0]
    assert len(breached) == (words is not None)


def test_limits_can_be_lifted_and_few_nights_are_no_history():
    loose = dict.fromkeys(("served_drop", "coverage", "tail_share", "overlap", "drift", "volume"))
    bad = {"users_by_model": 0, "coverage": 0.0, "tail_share": 0.0, "list_overlap": 0.0}
    bad |= {"profile_drift": 1.0, "new_interactions": 10**6}
    assert len(found(bad)) == 6
    assert found(bad, **loose) == []
    assert len(found(bad, BEFORE[:4])) == 4
    assert found({"anchor_ci_low": -0.05}, anchor=0.06) == []
    assert list(breaches(Nightly(), USUAL | bad, None, BEFORE)) == []  # a first champion


def test_small_losses_do_not_add_up_for_a_year():
    """Each night loses a little less than the tolerance; the anchor stops the third."""
    losses = [{"anchor_difference": -0.008 * n, "anchor_ci_low": -0.008 * n} for n in range(1, 6)]
    assert [bool(found(row)) for row in losses] == [False, False, True, True, True]
