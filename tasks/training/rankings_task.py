"""Stage *rankings*: a model that was trained elsewhere, by its rankings alone."""

from datetime import UTC, datetime
from glob import glob
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.config import Evaluation, Job, Pipeline, parse_metric
from models.dataset.delimited_text import Dialect, records
from models.dataset.record_blocks import require_columns
from models.errors import BadInput, cut
from models.evaluation.user_scores import score
from models.schemas import ITEM, RANKINGS, USER, Epoch
from tasks.dataset.outputs import Splits
from tasks.execution.stage import stage
from tasks.storage.artifacts import Handle, read_parquet, write_file, write_parquet
from tasks.storage.imported_files import parquet_table
from tasks.storage.sql_scripts import query
from tasks.storage.text_files import is_parquet, text_source
from tasks.training.outputs import Trained

_LINES = pa.schema({"row": pa.int64(), "line": pa.large_string()})


def ranking_files(pipeline: Pipeline) -> dict[tuple[str, int], dict[str, Any]]:
    """Write the rankings that `models` names as raw artifacts: the stage's inputs, by model, seed.

    Raises:
        BadInput: where there is not one file for each seed of the model.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for name in pipeline.models.keys() - set(pipeline.trained_here):
        named = str(pipeline.models[name].rankings).replace(
            "{split.seed}", str(pipeline.split.seed)
        )
        path, seeds = Path(named).expanduser(), pipeline.seeds_of(name)
        found_here = glob(str(path), recursive=True)  # noqa: PTH207 - Path takes none from a root
        files = [file for file in map(Path, found_here) if file.is_file()]
        files.sort(key=lambda file: (len(str(file)), file))  # seed 10 comes after seed 9
        if len(files) != len(seeds):
            raise BadInput(
                f"models.{name}.rankings: {named} names {len(files)} files, but the model has "
                f"{len(seeds)} seeds ({', '.join(map(str, seeds))}). Give one file for each, or "
                f"set training.seeds or models.{name}.seeds."
            )
        for seed, file in zip(seeds, files, strict=True):
            where = f"models.{name}.rankings {file}"
            found[name, seed] = {"where": where, "file": write_file("raw", file.suffix, file)}
    return found


@stage("rankings", version=1)
def rankings(job: Job, where: str, file: Handle, splits: Splits, items: Handle) -> Trained:
    """Check rankings made elsewhere against the split, and cut them at the longest cut-off.

    The result has no weights, and an epoch only where the validation part is ranked as well.

    Raises:
        BadInput: naming file, row and field of the first fault; see `sql/check_rankings.sql`.
    """
    now = datetime.now(UTC)
    parts = {**dict(splits), "items": items}
    tables = {name: read_parquet(handle) for name, handle in parts.items()}
    table = _checked(file, where, job.k, tables)
    epochs = []
    if "valid" in table["split"].unique().to_pylist():
        metric, k = parse_metric(job.budget.valid_metric)
        asked = Evaluation(metrics=(metric,), k=(k or job.k,), primary=job.budget.valid_metric)
        value = float(score(table, tables["valid"], "valid", asked).values[metric, k].mean())
        unknown = {"phase": "elsewhere", "model_loss": 0.0, "transfer_loss": None, "seconds": 0.0}
        epochs = [Epoch(epoch=0, valid_score=value, **unknown)]
    return Trained(
        job=job,
        rankings=write_parquet("training", table, {"file": file, **parts}),
        weights=None,
        epochs=tuple(epochs),
        best_epoch=0,
        train_seconds=0.0,
        flow_run_id=None,
        started_at=now,
        finished_at=now,
    )


def _checked(file: Handle, where: str, k: int, tables: dict[str, pa.Table]) -> pa.Table:
    """Read Parquet (with `items`, or `item_id` and `score`) or a TREC run: schema `RANKINGS`."""
    from duckdb import Error

    form = "given_trec"
    if is_parquet(file.verify()):
        held = parquet_table(file.verify(), where)
        form = "given_lists" if "items" in held.column_names else "given_items"
        wanted = ["items"] if form == "given_lists" else [ITEM, "score"]
        require_columns(held.column_names, [USER, *wanted], where)
        if "split" not in held.column_names:
            held = held.append_column("split", pa.array(["test"] * held.num_rows))
        held = held.append_column("row", pa.array(range(1, held.num_rows + 1)))
    else:
        lines = records(text_source(file.verify(), where), Dialect(quoted=False), where)
        held = pa.Table.from_batches(lines, _LINES)
    try:
        known = {**tables, "given": query(f"training/{form}", {"file": held})}
    except Error as error:
        raise BadInput(
            f"{where}: a column holds values of the wrong kind ({cut(str(error))}). Convert it."
        ) from error
    for fault in query("training/check_rankings", known, k=k).to_pylist():
        at = "" if fault["row"] is None else f", row {fault['row']}"
        more = f" (and {fault['rows'] - 1} more)" if fault["rows"] > 1 else ""
        said = f"{fault['field']}: {cut(str(fault['value']))}{more} {fault['why']}"
        raise BadInput(f"{where}{at}, {said}")
    return query("training/best_items", known, k=k).cast(RANKINGS)
