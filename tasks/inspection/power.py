"""Power of a planned experiment, by the variances of past runs of the same model and data set."""

import math
from collections.abc import Iterable, Sequence

from pydantic import BaseModel

from models.arrow import Floats
from models.config import BASELINE, Pipeline, parse_metric
from models.recommenders.registry import judged
from models.statistics.claims import LEVEL
from models.statistics.contrasts import paired_values
from models.statistics.power import Variances
from tasks.results.cross_experiment import points_of, runs_of, user_values
from tasks.results.database import has_database
from tasks.results.queries import reading, select

_PILOTS = """
    SELECT experiment FROM runs
    WHERE is_current AND dataset = $dataset AND model = $model AND arm IN ($arm, $baseline)
    GROUP BY experiment HAVING count(DISTINCT arm) = 2
    ORDER BY experiment <> $own, max(finished_at) DESC
"""


class Power(BaseModel):
    """What one model's first claim, above its own baseline, can find.

    `detectable_percent` is the gain that is found with 80 % power; `needed` has the replicates
    for gains of 1, 3 and 5 percent, None for more than 100. Both are None without past runs.
    """

    model: str
    arm: str
    replicates: int
    pilot: str | None = None
    pilot_splits: int = 0
    detectable_percent: float | None = None
    needed: dict[int, int | None] | None = None


def power_of(pipelines: Sequence[Pipeline], replicates: int, own: str) -> list[Power]:
    """Foresee the power of each model's step A, at its first share of the level.

    `pipelines` are an experiment's points, `replicates` planned splits, or seeds of one split; past
    runs of the experiment `own` are the first choice.
    """
    chains = {
        (model, arm.name): pipeline
        for pipeline in pipelines
        for model in pipeline.models
        for arm in pipeline.arms_of(model)
        if arm.is_treatment and (arm.models is None or model in arm.models)
        if judged(model).tap or judged(model).takes_embeddings
    }
    return [
        _foreseen(Power(model=model, arm=arm, replicates=replicates), pipeline, own, len(chains))
        for (model, arm), pipeline in chains.items()
    ]


def _foreseen(power: Power, pipeline: Pipeline, own: str, chains: int) -> Power:
    for pilot, splits, arm, baseline in _pilots(power, pipeline, own):
        variances, level = Variances.of(arm - baseline), LEVEL / chains
        percent = baseline.mean() / 100
        detectable = float(variances.detectable(power.replicates, level) / percent)
        return power.model_copy(
            update={
                "pilot": pilot,
                "pilot_splits": splits,
                "detectable_percent": detectable if math.isfinite(detectable) else None,
                "needed": {n: variances.needed(n * percent, level) for n in (1, 3, 5)},
            }
        )
    return power


def _pilots(
    power: Power, pipeline: Pipeline, own: str
) -> Iterable[tuple[str, int, Floats, Floats]]:
    """Past experiments with both arms: name, splits, and both arms' values by replicate."""
    if not has_database():
        return
    asked = {"dataset": pipeline.dataset.name, "model": power.model, "arm": power.arm}
    column = parse_metric(pipeline.evaluation.primary)
    with reading() as connection:
        for row in select(connection, _PILOTS, **asked, baseline=BASELINE, own=own):
            for rows in points_of(connection, row["experiment"]).values():
                wanted = [
                    each
                    for each in rows
                    if each["model"] == power.model and each["arm"] in (power.arm, BASELINE)
                ]
                values = user_values(connection, [each["run_id"] for each in wanted])
                found = paired_values(runs_of(wanted, values), power.arm, column)
                if found and (len(found[0]) > 1 or not judged(power.model).is_stochastic):
                    splits = len({each["split_digest"] for each in wanted})
                    yield row["experiment"], splits, *found
