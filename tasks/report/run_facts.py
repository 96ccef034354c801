"""Facts of a run for its report: where numbers come from, what they cost, and what differs."""

import difflib
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.embeddings.outputs import Described
from tasks.evaluation.outputs import Evaluated
from tasks.execution.stage_record import StageRecord
from tasks.storage.artifacts import Handle, read_parquet
from tasks.training.outputs import Trained

Facts = dict[str, dict[str, Any]]


def facts(
    evaluated: Evaluated, trained: Sequence[Trained], described: Sequence[Described]
) -> dict[str, Any]:
    """`facts`, where the numbers come from, under headings; and `versions` of packages."""
    found: Facts = {}
    for of in described:
        for heading, known in _side_facts(of).items():
            if known not in found.values():
                found[_free(found, heading)] = known
    found["Code and configuration"] = {
        "Git commit": evaluated.git_sha or "not known",
        "Configuration hash": evaluated.config_hash,
        "Evaluation": evaluated.evaluation_id,
    }
    return {"facts": found, "versions": _versions(trained[0].rankings)}


def _free(found: Facts, heading: str) -> str:
    """The heading, numbered where the points of an experiment differ in what it names."""
    number = sum(of.split(" (")[0] == heading for of in found)
    return f"{heading} ({number + 1})" if number else heading


def _side_facts(described: Described) -> Facts:
    found: Facts = {}
    profiled, embedded, side = described.profiled, described.embedded, described.side
    if profiled:
        found[f"Profiles of {side}"] = {
            "Source": profiled.source,
            "Provenance": profiled.provenance,
            "LLM": profiled.llm_model or "none",
            "Prompt hash": profiled.prompt_hash,
            f"{side.capitalize()} without a profile": profiled.missing,
            "Answers paid for / from the cache": (
                f"{profiled.answers_paid} / {profiled.answers_cached}"
            ),
            "Cost in USD": "not known" if profiled.cost_usd is None else f"{profiled.cost_usd:.4f}",
            "Artifact, sha256": profiled.profiles.sha256,
        }
    found[f"Embeddings of {side}"] = {"Model": embedded.model, "Width": embedded.width}
    if embedded.provenance:
        found[f"Embeddings of {side}"] |= {
            "Provenance": embedded.provenance,
            f"{side.capitalize()} without a vector": embedded.missing,
        }
    if described.pooled:
        found[f"Embeddings of {side}"]["Made of"] = "the mean of their training items' profiles"
    found[f"Embeddings of {side}"]["Artifact, sha256"] = embedded.embeddings.sha256
    return found


def _versions(rankings: Handle) -> dict[str, str]:
    """Package versions at the time of training, from the artifact's own record."""
    record = json.loads(pq.read_metadata(rankings.verify()).metadata[b"llmkt"])
    versions: dict[str, str] = record["versions"]
    return versions


def calls(described: Sequence[Described]) -> list[dict[str, Any]]:
    """Answers that the run uses, per side, provider, model, and whether they were paid for."""
    found = []
    for of in described:
        if of.profiled is None:
            continue
        table = read_parquet(of.profiled.calls)
        sums = [(name, "sum") for name in ("prompt_tokens", "completion_tokens", "cost_usd")]
        nulls = pc.is_null(table["cost_usd"]).cast(pa.int64())
        grouped = (
            table.append_column("no_price", nulls)
            .group_by(["provider", "model", "cached"])
            .aggregate([([], "count_all"), *sums, ("no_price", "sum")])
        )
        found += [{"side": of.side, **row} for row in grouped.to_pylist()]
    return sorted(
        found, key=lambda row: (row["side"], row["provider"], row["model"], row["cached"])
    )


def stages(records: Sequence[StageRecord], trained: Sequence[Trained]) -> list[dict[str, Any]]:
    """Stages as they went, with what a training took when it ran, over all seeds.

    What went alike, such as every control's targets, is one row of `times`.
    """
    took: dict[tuple[str | None, str | None], float] = {}
    for run in trained:
        of = (run.job.model, run.job.arm)
        took[of] = took.get(of, 0.0) + run.train_seconds
    rows: dict[tuple[str | None, ...], dict[str, Any]] = {}
    for record in records:
        key = (record.name, record.side, record.model, record.arm, record.state)
        first = {**record.model_dump(), "times": 0, "took": took.get((record.model, record.arm))}
        row = rows.setdefault(key, first | {"seconds": 0.0})
        row["times"] += 1
        row["seconds"] += record.seconds
    return list(rows.values())


def diff(of_pipeline: str, of_run: str) -> str:
    """A unified diff without its head; empty where nothing differs."""
    lines = difflib.unified_diff(of_pipeline.splitlines(), of_run.splitlines(), lineterm="", n=1)
    return "\n".join(list(lines)[2:])
