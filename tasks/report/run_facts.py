"""Facts of a run for its report: sources, costs, times and differing configurations."""

import difflib
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.embeddings.outputs import Described
from tasks.evaluation.outputs import Evaluated
from tasks.execution.stage import StageRecord
from tasks.storage.artifacts import read_parquet
from tasks.training.outputs import Trained

Facts = dict[str, dict[str, Any]]


def facts(
    evaluated: Evaluated, trained: Sequence[Trained], described: Sequence[Described]
) -> dict[str, Any]:
    """`facts`, the sources of the numbers under headings; and `versions` of packages.

    Versions are those at the time of training, from the artifact's own record.
    """
    found: Facts = {}
    for side in described:
        for heading, known in _side_facts(side).items():
            if known not in found.values():
                found[_free(found, heading)] = known
    found["Code and configuration"] = {
        "Git commit": evaluated.git_sha or "not known",
        "Configuration hash": evaluated.config_hash,
        "Evaluation": evaluated.evaluation_id,
    }
    record = pq.read_metadata(trained[0].rankings.verify()).metadata[b"llmkt"]
    return {"facts": found, "versions": json.loads(record)["versions"]}


def _free(found: Facts, heading: str) -> str:
    """The heading, numbered where the points of an experiment differ in its facts."""
    number = sum(known.split(" (")[0] == heading for known in found)
    return f"{heading} ({number + 1})" if number else heading


def _side_facts(described: Described) -> Facts:
    profiled, embedded, side = described.profiled, described.embedded, described.side
    vectors: dict[str, Any] = {"Model": embedded.model, "Width": embedded.width}
    if embedded.provenance:
        vectors["Provenance"] = embedded.provenance
        vectors[f"{side.capitalize()} without a vector"] = embedded.missing
    if described.pooled:
        vectors["Made of"] = "the mean of their training items' profiles"
    if described.further:
        vectors["Sources"] = described.source
    vectors["Artifact, sha256"] = embedded.embeddings.sha256
    if profiled is None:
        return {f"Embeddings of {side}": vectors}
    profiles = {
        "Source": profiled.source,
        "Provenance": profiled.provenance,
        "LLM": profiled.llm_model or "none",
        "Prompt hash": profiled.prompt_hash,
        f"{side.capitalize()} without a profile": profiled.missing,
        "Answers paid for / from the cache": f"{profiled.answers_paid} / {profiled.answers_cached}",
        "Cost in USD": "not known" if profiled.cost_usd is None else f"{profiled.cost_usd:.4f}",
        "Artifact, sha256": profiled.profiles.sha256,
    }
    return {f"Profiles of {side}": profiles, f"Embeddings of {side}": vectors}


def calls(described: Sequence[Described]) -> list[dict[str, Any]]:
    """Answers that the run uses, per side, provider, model, and whether they were paid for."""
    sums = [(name, "sum") for name in ("prompt_tokens", "completion_tokens", "cost_usd")]
    found = []
    for side in described:
        if side.profiled is None:
            continue
        table = read_parquet(side.profiled.calls)
        nulls = pc.is_null(table["cost_usd"]).cast(pa.int64())
        grouped = (
            table.append_column("no_price", nulls)
            .group_by(["provider", "model", "cached"])
            .aggregate([([], "count_all"), *sums, ("no_price", "sum")])
        )
        found += [{"side": side.side, **row} for row in grouped.to_pylist()]
    return sorted(
        found, key=lambda row: (row["side"], row["provider"], row["model"], row["cached"])
    )


def stages(records: Sequence[StageRecord], trained: Sequence[Trained]) -> list[dict[str, Any]]:
    """Stages in their order, with the time of their trainings when they ran, over all seeds.

    Equal ones, such as every control's targets, are one row of `times`.
    """
    took: dict[tuple[str | None, str | None], float] = {}
    for run in trained:
        arm = (run.job.model, run.job.arm)
        took[arm] = took.get(arm, 0.0) + run.train_seconds
    rows: dict[tuple[str | None, ...], dict[str, Any]] = {}
    for record in records:
        key = (record.name, record.side, record.model, record.arm, record.state)
        first = {**record.model_dump(), "times": 0, "took": took.get((record.model, record.arm))}
        row = rows.setdefault(key, first | {"seconds": 0.0})
        row["times"] += 1
        row["seconds"] += record.seconds
    return list(rows.values())


def diff(pipeline: str, run: str) -> str:
    """A unified diff of two configurations without its head; empty where nothing differs."""
    lines = difflib.unified_diff(pipeline.splitlines(), run.splitlines(), lineterm="", n=1)
    return "\n".join(list(lines)[2:])
