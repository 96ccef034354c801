"""The family of claims, fixed by configuration and validation before test is scored."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean

from models.config import BASELINE
from models.statistics.claims import Chain, declare
from tasks.evaluation.inputs import Part
from tasks.execution.cache_key import digest


def declared(
    parts: Sequence[Part], pools: Mapping[str, str | None]
) -> tuple[tuple[Chain, ...], str]:
    """List the claims about trained models, and hash them: 16 hex digits.

    Reads no score on test: a reference is chosen by the validation score of its baseline. `pools`
    has each point's name in comparisons.
    """
    if not parts:
        return (), digest({"claims": []})
    arms: dict[str | None, dict[tuple[str, str], None]] = {}
    scores: dict[tuple[str | None, str], list[float]] = {}
    for part in parts:
        point = part.point and pools.get(part.point, part.point)
        for trained in part.trained:
            job = trained.job
            arms.setdefault(point, {})[job.model, job.arm] = None
            if job.arm == BASELINE and trained.epochs:  # rankings may be of test alone
                score = trained.epochs[trained.best_epoch].valid_score
                scores.setdefault((point, job.model), []).append(score)
    valid = {key: fmean(values) for key, values in scores.items()}
    claims = parts[0].pipeline.evaluation.claims
    chains = declare(claims, arms, valid)
    return chains, digest({"claims": claims, "chains": [asdict(chain) for chain in chains]})
