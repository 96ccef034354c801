"""The LLM that profiles are asked of."""

from typing import Any

from pydantic import Field

from models.config.section import NOT_IDENTITY, Section


class Sampling(Section):
    """Which model answers and how: what a prompt's front matter may set."""

    model: str = Field("gpt-4o-mini", description="Model name at the endpoint.")
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature.")
    max_tokens: int = Field(400, ge=16, description="Longest answer, in tokens.")
    seed: int | None = Field(7, description="Sampling seed, if the endpoint supports one.")


class LLM(Sampling):
    """An OpenAI-compatible chat endpoint."""

    base_url: str | None = Field(None, description="URL of the endpoint; empty: api.openai.com.")
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        description="Name of the environment variable that holds the key.",
        json_schema_extra=NOT_IDENTITY,
    )
    api_key_secret: str | None = Field(
        None,
        description="Name of a Prefect Secret block that holds the key; read before the variable.",
        json_schema_extra=NOT_IDENTITY,
    )
    concurrency: int = Field(
        16, ge=1, le=512, description="Requests in flight.", json_schema_extra=NOT_IDENTITY
    )
    requests_per_minute: float | None = Field(
        None,
        gt=0,
        description="Limit of the endpoint, retries included; empty: none.",
        json_schema_extra=NOT_IDENTITY,
    )
    tokens_per_minute: float | None = Field(
        None,
        gt=0,
        description="Limit of the endpoint; empty: none. Until a request is answered, its text and "
        "max_tokens count.",
        json_schema_extra=NOT_IDENTITY,
    )
    batch_poll_seconds: float = Field(
        30,
        gt=0,
        description="openai-batch only: pause between two looks at a batch.",
        json_schema_extra=NOT_IDENTITY,
    )
    batch_wait_hours: float = Field(
        25,
        ge=0,
        description="openai-batch only: how long a run waits. Batches continue without it, and the "
        "next run collects their answers.",
        json_schema_extra=NOT_IDENTITY,
    )
    timeout_seconds: float = Field(
        60, gt=0, description="Time-out of a request.", json_schema_extra=NOT_IDENTITY
    )
    max_retries: int = Field(
        6,
        ge=0,
        description="Retries per request on 408, 409, 429, 5xx and lost connections, with "
        "exponential waits, jitter and Retry-After.",
        json_schema_extra=NOT_IDENTITY,
    )
    prices: str | None = Field(
        None,
        description="Path of a price table; empty: tasks/config/prices.yaml.",
        json_schema_extra=NOT_IDENTITY,
    )
    budget_usd: float | None = Field(
        None,
        gt=0,
        description="Most that a run may spend on these answers, in US dollars; empty: no limit. "
        "Requests in flight count with their text and max_tokens, and so do lost ones. Paid "
        "answers are kept, and a run with another budget asks only for the rest.",
        json_schema_extra=NOT_IDENTITY,
    )

    def request_identity(self) -> dict[str, Any]:
        """The fields that decide an answer: endpoint, model and sampling, but not the key."""
        fields = {"base_url", *Sampling.model_fields}
        return {key: value for key, value in self.identity().items() if key in fields}
