"""The demo's plan: what it trains, and that its two points share their baselines."""

from collections import Counter

from flows.grid.hyperparameter_search import settled
from flows.steps.preparation import jobs_of
from flows.steps.stage_runner import CachedStages
from models.report.wording import beyond_controls
from tasks.config.experiment_file import load_experiment
from tasks.profiles.knowledge_pack import require_pack
from tasks.storage.artifacts import PROJECT_ROOT


def test_the_demo_trains_each_arm_of_its_points_and_shares_the_baselines():
    loaded = load_experiment(PROJECT_ROOT / "configs" / "demo.yaml")
    stages = CachedStages(dry=True)
    jobs = {
        chosen.name: [
            job
            for pipeline in settled(chosen, loaded.config.settings, stages)
            for job in jobs_of(pipeline, stages)
        ]
        for chosen in loaded.points
    }
    counts = {
        point: Counter((job.model, job.arm) for job in found) for point, found in jobs.items()
    }
    assert counts["recipe"]["BPR", "transfer"] == counts["recipe"]["iALS", "transfer"] == 5
    assert counts["recipe"]["EASE", "genres-years"] == 1
    assert counts["as published"]["BPR", "transfer"] == 1
    assert counts["as published"]["EASE", "transfer"] == 0
    baselines = [job for job in jobs["as published"] if job.arm == "baseline"]
    assert baselines
    assert all(job in jobs["recipe"] for job in baselines)
    for chosen in loaded.points:
        require_pack(chosen.pipeline)
    claims = loaded.points[0].pipeline.evaluation.claims
    assert (claims.points, claims.steps) == (("recipe",), ("own-baseline",))


def test_what_knowledge_adds_to_controls_is_said_in_the_end():
    row = {"model": "EASE", "arm": "transfer", "is_primary": True, "gain_percent": 0.7}
    row |= {"ci_low": 0.0004, "ci_high": 0.0044, "ci_level": 0.95, "profile_source": "llm-pack:toy"}
    rows = [row | {"against": "baseline"}, row | {"against": "genres-years"}]
    rows.append(row | {"arm": "kar", "against": "genres-years"})  # takes its knowledge otherwise
    assert beyond_controls(rows) == [
        "What the LLM adds (difference, 95 % CI):",
        "  to genres-years: EASE +0.7 % [+0.0004, +0.0044]",
    ]
    offline = rows[1] | {"profile_source": "offline", "point": "titles"}
    assert beyond_controls([rows[1], offline])[0].startswith("What knowledge adds"), (
        "not all is an LLM's"
    )
    elsewhere = [rows[1] | {"point": point} for point in ("thin", "dense")]
    assert beyond_controls(elsewhere)[1:] == [
        "  to genres-years at thin: EASE +0.7 % [+0.0004, +0.0044]",
        "  to genres-years at dense: EASE +0.7 % [+0.0004, +0.0044]",
    ]
    assert beyond_controls(rows[:1]) == []
    rows[1]["profile_source"] = "offline"
    assert beyond_controls(rows)[0].startswith("What knowledge adds")
