from models.report.verdict import verdict


def row(model, found, against="baseline", arm="transfer", gain=None, **changes):
    known = {
        "model": model,
        "arm": arm,
        "against": against,
        "verdict": found,
        "gain_percent": gain,
        "metric": "ndcg",
        "k": 10,
        "is_primary": True,
        "profile_provenance": "train-only",
        "splits": 10,
        "claim": {"baseline": "A", "EASE": "C"}.get(against, "B"),
    }
    return known | changes


def test_nothing_compared_has_no_verdict():
    assert verdict([]) is None


def test_a_gain_without_a_control_says_what_it_does_not_prove():
    rows = [
        row("NeuMF", "better", gain=3.14),
        row("BPR", "worse", gain=-2.0),
        row("SimpleX", "no detectable difference", gain=1.0),
        row("LightGCN", "not comparable: seeds differ"),
        row("DMF", "one seed: undecided", gain=9.0),
        row("FISM", "no transfer chosen", gain=0.1),
        row("NGCF", "exploratory", gain=1.5),
    ]
    assert verdict(rows) == (
        "On NDCG@10, transfer is better than its own baseline for NeuMF (+3.1 %), worse than its "
        "own baseline for BPR (−2.0 %), without a detectable difference for SimpleX, not chosen on "
        "validation for FISM, undecided from one seed for DMF, estimated without a verdict for "
        "NGCF (+1.5 %), not comparable for LightGCN; no control was run, so the gain need not be "
        "due to what the profiles say."
    )


def test_only_a_gain_above_every_control_counts_as_the_profiles():
    gains = [row("NeuMF", "better", gain=3.0), row("BPR", "better", gain=5.0)]
    held = [
        row("NeuMF", "better", "shuffled"),
        row("NeuMF", "better", "noise"),
        row("BPR", "better", "shuffled"),
        row("BPR", "not above every control", "noise"),
    ]
    assert "; above every control, too, for NeuMF." in verdict(gains + held)
    assert "; none of these gains is above every control." in verdict([gains[1], *held[2:]])


def test_the_claimed_reference_is_named():
    rows = [
        row("BPR", "better"),
        row("BPR", "not above the best reference", "EASE"),
        row("BPR", "exploratory", "Pop", claim=None),
    ]
    said = verdict(rows)
    assert said.endswith("; no model with transfer is above EASE, the best reference.")
    rows[1] = row("BPR", "better", "EASE")
    assert verdict(rows).endswith("; with it, BPR is above EASE, the best reference.")


def test_one_split_is_marked():
    assert verdict([row("BPR", "worse", splits=1)]).startswith("On NDCG@10 of one split, transfer")


def test_doubts_come_first():
    leaky = verdict([row("BPR", "better", gain=9.0, profile_provenance="leaky")])
    assert leaky.startswith("This is no evidence, because the profiles have seen held-out")
    unknown = verdict([row("BPR", "better", gain=9.0, profile_provenance="unknown")])
    assert unknown.startswith("If the profiles have seen no held-out interactions, which nothing")


def test_controls_speak_where_transfer_was_not_run():
    rows = [row("BPR", "worse", arm="noise", gain=-1.0)]
    assert verdict(rows) == "On NDCG@10, noise is worse than its own baseline for BPR (−1.0 %)."


def test_points_of_an_experiment_are_named():
    rows = [
        row("BPR", "better", gain=3.0, point="alpha=0.1"),
        row("BPR", "worse", gain=-2.0, point="alpha=0.9"),
        row("BPR", "better", "shuffled", point="alpha=0.1"),
        row("BPR", "worse", "shuffled", point="alpha=0.9"),
    ]
    assert verdict(rows) == (
        "On NDCG@10, transfer is better than its own baseline for BPR at alpha=0.1 (+3.0 %), worse "
        "than its own baseline for BPR at alpha=0.9 (−2.0 %); above every control, too, for BPR at "
        "alpha=0.1."
    )
