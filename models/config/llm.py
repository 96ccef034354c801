"""The LLM that profiles are asked of."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from models.config.section import Section, Seed, unkeyed
from models.credentials import looks_like_key


def _naming(pattern: str, problem: str) -> AfterValidator:
    """Refuse a text that looks like a key, or is no name of that pattern."""

    def check(text: str) -> str:
        if looks_like_key(text) or not re.fullmatch(pattern, text):
            raise ValueError(problem)
        return text

    return AfterValidator(check)


VariableName = Annotated[
    str,
    _naming(
        r"[A-Z_][A-Z0-9_]{0,63}",
        "this is not the name of an environment variable. Put the key into a variable and name "
        "that, in capital letters, such as OPENAI_API_KEY",
    ),
]
BlockName = Annotated[
    str,
    _naming(
        r"[a-z0-9][a-z0-9-]{0,63}",
        "this is not the name of a Prefect block. Put the key into a Secret block and name "
        "that, in lower-case letters, digits and dashes",
    ),
]
"""Names of places that hold a key, never a key."""

_REASONING = re.compile(r"(?:.*[/:])?(?:o\d\b|gpt-5(?!.*chat))")
"""OpenAI's reasoning models, also as providers and fine-tunings name them: openai/o3-mini."""


class Sampling(Section):
    """Which model answers and how: what a prompt's front matter may set."""

    model: str = Field("gpt-4o-mini", description="Model name at the endpoint.")
    temperature: float | None = Field(
        0.0,
        ge=0,
        le=2,
        description="Sampling temperature; null, and the default for OpenAI's reasoning models: "
        "not sent.",
    )
    max_tokens: int | None = Field(
        400, ge=16, description="Longest answer, reasoning included, in tokens; null: not sent."
    )
    seed: Seed | None = Field(7, description="Sampling seed; null: not sent.")


class Endpoint(Section):
    """An OpenAI-compatible endpoint, its key, and how long to wait for it."""

    base_url: str | None = Field(
        None,
        description="URL of the endpoint, perhaps with a query such as ?api-version=…; empty: "
        "api.openai.com.",
    )
    api_key_env: VariableName = unkeyed(
        "OPENAI_API_KEY",
        description="Name of the environment variable that holds the key, in capital letters.",
    )
    api_key_secret: BlockName | None = unkeyed(
        None,
        description="Name of a Prefect Secret block that holds the key; read before the variable.",
    )
    timeout_seconds: float = unkeyed(
        60, gt=0, le=1e6, description="Longest silence of the endpoint within a request."
    )
    total_seconds: float = unkeyed(
        600,
        gt=0,
        le=1e6,
        description="Longest time of a request, from its first byte to the last one.",
    )
    max_retries: int = unkeyed(
        6,
        ge=0,
        description="Retries per request on 408, 409, 429, 5xx and lost connections, with "
        "exponential waits, jitter and Retry-After.",
    )


class LLM(Endpoint, Sampling):
    """An OpenAI-compatible chat endpoint."""

    rename: dict[Literal["temperature", "max_tokens", "seed"], str] = Field(
        {},
        description="Request parameters that the endpoint knows by another name, such as "
        "{max_tokens: max_completion_tokens}, the default for OpenAI's reasoning models.",
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

    @model_validator(mode="before")
    @classmethod
    def _as_its_family(cls, settings: Any) -> Any:
        """Leave out and rename what a reasoning model refuses, where nothing else is set."""
        model = settings.get("model") if isinstance(settings, dict) else None
        if not (isinstance(model, str) and _REASONING.match(model)):
            return settings
        return {"temperature": None, "rename": {"max_tokens": "max_completion_tokens"}} | settings

    def request_identity(self) -> dict[str, Any]:
        """The fields that decide an answer: endpoint, model and sampling, but not the key."""
        fields = {"base_url", "rename", *Sampling.model_fields}
        return {key: value for key, value in self.identity().items() if key in fields}
