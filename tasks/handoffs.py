"""What stages hand each other: small records of handles and facts, never data frames.

They are what Prefect persists per task, so they hold no secrets and stay a few kilobytes.
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from models.config import Arm, Model, Transfer
from tasks.storage import Handle

Provenance = Literal["train-only", "unknown", "leaky"]


class Handoff(BaseModel):
    """Base of all hand-offs."""

    model_config = ConfigDict(frozen=True)


class Interactions(Handoff):
    """The data set: schemas `INTERACTIONS`, `ITEMS` and `USERS`."""

    interactions: Handle
    items: Handle
    users: Handle


class Splits(Handoff):
    """Schema `INTERACTIONS` three times, without overlap."""

    train: Handle
    valid: Handle
    test: Handle


class Profiled(Handoff):
    """One profile per user (schema `PROFILES`) and what they cost (schema `LLM_CALLS`)."""

    profiles: Handle
    calls: Handle
    source: Literal["offline", "openai"]
    llm_model: str | None
    prompt_hash: str
    provenance: Provenance
    missing: int
    answers_cached: int
    answers_paid: int
    cost_usd: float | None


class Embedded(Handoff):
    """One embedding per user with a profile (schema `vectors("embedding", width)`)."""

    embeddings: Handle
    model: str
    width: int
    texts_cached: int
    texts_embedded: int


class Targeted(Handoff):
    """One target per embedded user (schema `vectors("target", width)`)."""

    targets: Handle
    reduction: str
    width: int


class Epoch(Handoff):
    """One epoch of a training; losses are means over its batches."""

    phase: str
    epoch: int
    model_loss: float
    transfer_loss: float | None
    valid_score: float
    seconds: float


class Trained(Handoff):
    """One trained model: rankings (schema `RANKINGS`), weights and the course of training."""

    model: str
    arm: Arm
    seed: int
    layer: str
    settings: Model
    transfer: Transfer | None
    rankings: Handle
    weights: Handle
    epochs: tuple[Epoch, ...]
    epochs_budget: int
    best_epoch: int
    train_seconds: float
    flow_run_id: str | None
    started_at: datetime
    finished_at: datetime


class Difference(Handoff):
    """One arm against the baseline on one metric of one model, on test."""

    model: str
    arm: str
    metric: str
    k: int
    baseline_mean: float
    baseline_sd: float | None
    arm_mean: float
    arm_sd: float | None
    gain_percent: float
    difference: float
    low: float
    high: float
    p_value: float
    seeds: int
    users: int
    verdict: str


class Reported(Handoff):
    """The comparison and where its report is."""

    comparison: tuple[Difference, ...]
    report: Handle
