"""The LLM that profiles are asked of."""

from typing import Any

from pydantic import Field

from models.config.section import NOT_IDENTITY, Section


class LLM(Section):
    """An OpenAI-compatible chat endpoint."""

    base_url: str | None = Field(None, description="Endpoint; empty means api.openai.com.")
    model: str = Field("gpt-4o-mini", description="Model name as the endpoint knows it.")
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature.")
    max_tokens: int = Field(400, ge=16, description="Longest answer, in tokens.")
    seed: int | None = Field(7, description="Sampling seed, where the endpoint honours one.")
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        description="Environment variable with the key: its name, never the key.",
        json_schema_extra=NOT_IDENTITY,
    )
    api_key_secret: str | None = Field(
        None,
        description="Name of a Prefect Secret block with the key; used before the variable.",
        json_schema_extra=NOT_IDENTITY,
    )
    concurrency: int = Field(
        16, ge=1, le=512, description="Requests in flight.", json_schema_extra=NOT_IDENTITY
    )
    requests_per_minute: float | None = Field(
        None,
        gt=0,
        description="The endpoint's limit, retries included; empty means none.",
        json_schema_extra=NOT_IDENTITY,
    )
    tokens_per_minute: float | None = Field(
        None,
        gt=0,
        description="The endpoint's limit; a request counts with its text and max_tokens until "
        "its answer says what it used. Empty means none.",
        json_schema_extra=NOT_IDENTITY,
    )
    batch_poll_seconds: float = Field(
        30,
        gt=0,
        description="openai-batch: how often a batch is looked at.",
        json_schema_extra=NOT_IDENTITY,
    )
    batch_wait_hours: float = Field(
        25,
        ge=0,
        description="openai-batch: how long a run waits; batches go on without it, and the next "
        "run picks them up.",
        json_schema_extra=NOT_IDENTITY,
    )
    timeout_seconds: float = Field(
        60, gt=0, description="Per request.", json_schema_extra=NOT_IDENTITY
    )
    max_retries: int = Field(
        6,
        ge=0,
        description="Retries per request on 408, 409, 429, 5xx and lost connections, with "
        "exponential waits with jitter that honour Retry-After.",
        json_schema_extra=NOT_IDENTITY,
    )
    prices: str | None = Field(
        None,
        description="A price table of your own; empty means tasks/config/prices.yaml.",
        json_schema_extra=NOT_IDENTITY,
    )
    budget_usd: float | None = Field(
        None,
        gt=0,
        description="What a run may spend on these answers, in US dollars; empty means any amount. "
        "Asking stops before the spend passes it: requests in flight count with their text and "
        "max_tokens, and so do those that were lost, for they may be billed. The answers are "
        "kept, and a run with another budget asks only the rest.",
        json_schema_extra=NOT_IDENTITY,
    )

    def request_identity(self) -> dict[str, Any]:
        """The fields that decide an answer: endpoint, model and sampling, but not the key."""
        fields = {"base_url", "model", "temperature", "max_tokens", "seed"}
        return {key: value for key, value in self.identity().items() if key in fields}
