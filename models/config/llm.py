"""The LLM that profiles are asked of."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from models.config.section import Section, Seed, unkeyed
from models.credentials import looks_like_key


def _variable_name(text: str) -> str:
    if looks_like_key(text) or not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", text):
        raise ValueError(
            "this is not the name of an environment variable. Put the key into a variable and name "
            "that, in capital letters, such as OPENAI_API_KEY"
        )
    return text


def _block_name(text: str) -> str:
    if looks_like_key(text) or not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", text):
        raise ValueError(
            "this is not the name of a Prefect block. Put the key into a Secret block and name "
            "that, in lower-case letters, digits and dashes"
        )
    return text


VariableName = Annotated[str, AfterValidator(_variable_name)]
BlockName = Annotated[str, AfterValidator(_block_name)]
"""Names of places that hold a key, never a key."""


class Sampling(Section):
    """Which model answers and how: what a prompt's front matter may set."""

    model: str = Field("gpt-4o-mini", description="Model name at the endpoint.")
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature.")
    max_tokens: int = Field(400, ge=16, description="Longest answer, in tokens.")
    seed: Seed | None = Field(7, description="Sampling seed, if the endpoint supports one.")


class LLM(Sampling):
    """An OpenAI-compatible chat endpoint."""

    base_url: str | None = Field(None, description="URL of the endpoint; empty: api.openai.com.")
    api_key_env: VariableName = unkeyed(
        "OPENAI_API_KEY",
        description="Name of the environment variable that holds the key, in capital letters.",
    )
    api_key_secret: BlockName | None = unkeyed(
        None,
        description="Name of a Prefect Secret block that holds the key; read before the variable.",
    )
    concurrency: int = unkeyed(16, ge=1, le=512, description="Requests in flight.")
    requests_per_minute: float | None = unkeyed(
        None, ge=0.01, description="Limit of the endpoint, retries included; empty: none."
    )
    tokens_per_minute: float | None = unkeyed(
        None,
        ge=1,
        description="Limit of the endpoint; empty: none. Until a request is answered, its text and "
        "max_tokens count.",
    )
    batch_poll_seconds: float = unkeyed(
        30, gt=0, le=1e6, description="openai-batch only: pause between two looks at a batch."
    )
    batch_wait_hours: float = unkeyed(
        25,
        ge=0,
        le=1e6,
        description="openai-batch only: how long a run waits. Batches continue without it, and the "
        "next run collects their answers.",
    )
    timeout_seconds: float = unkeyed(60, gt=0, le=1e6, description="Time-out of a request.")
    max_retries: int = unkeyed(
        6,
        ge=0,
        description="Retries per request on 408, 409, 429, 5xx and lost connections, with "
        "exponential waits, jitter and Retry-After.",
    )
    prices: str | None = unkeyed(
        None, description="Path of a price table; empty: tasks/config/prices.yaml."
    )
    budget_usd: float | None = unkeyed(
        None,
        gt=0,
        description="Most that a run may spend on these answers, in US dollars; empty: no limit. "
        "Requests in flight count with their text and max_tokens, and so do lost ones. Paid "
        "answers are kept, and a run with another budget asks only for the rest.",
    )

    def request_identity(self) -> dict[str, Any]:
        """The fields that decide an answer: endpoint, model and sampling, but not the key."""
        fields = {"base_url", *Sampling.model_fields}
        return {key: value for key, value in self.identity().items() if key in fields}
