"""The base of every configuration section, and how its identity is taken."""

import hashlib
import json
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from models.credentials import credentials_of

CREDENTIAL = "credential"
"""Type of the error that refuses a credential; its message stands alone."""
Side = Literal["users", "items"]
SIDES: tuple[Side, ...] = get_args(Side)
"""The two sides that profiles can describe."""
NOT_IDENTITY: dict[str, JsonValue] = {"identity": False}
"""Marks a field that changes how the work is done, never its result."""


def unkeyed(default: Any, **settings: Any) -> Any:
    """Declare a field that changes how the work is done, never its result; see `pydantic.Field`."""
    return Field(default, json_schema_extra=NOT_IDENTITY, **settings)


class Section(BaseModel):
    """Base of every configuration section: immutable, strict about unknown keys, no credentials."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _no_credentials(cls, settings: Any) -> Any:
        """Refuse credentials under any key: settings are stored, shown and logged."""
        for place, kind in credentials_of(settings):
            raise PydanticCustomError(
                CREDENTIAL,
                f"{place} holds {kind}, which would be stored with the results. Take it out: an "
                "LLM's key belongs in the environment variable that api_key_env names, a store's "
                "in AWS_ACCESS_KEY_ID and the like; download a file behind a signed link first",
            )
        return settings

    def identity(self) -> dict[str, Any]:
        """Return the JSON-ready fields that decide the result: all but those of `NOT_IDENTITY`."""
        return {
            name: _identity(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if field.json_schema_extra != NOT_IDENTITY
        }

    def digest(self) -> str:
        """Return the first 16 hex digits of the sha256 of `identity()`."""
        canonical = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _identity(value: Any) -> Any:
    if isinstance(value, Section):
        return value.identity()
    if isinstance(value, dict):
        return {str(key): _identity(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_identity(item) for item in value]
    return value


class Placed(Section):
    """A section whose work a GPU may do.

    A GPU adds in another order, which changes the last digits of a result. A result from a GPU
    therefore has a key of its own, so that arms of one comparison never come from different kinds
    of device. `auto` is resolved before keys are taken (`tasks.execution.devices.placed`). The
    number of the GPU is not part of the identity.
    """

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")] = Field(
        "cpu",
        description="cpu; cuda: a GPU, with worker processes spread over all GPUs; cuda:N: that "
        "GPU; auto: cuda if there is a GPU, else cpu.",
    )

    @property
    def kind(self) -> str:
        """The kind of device, without its number."""
        return self.device.partition(":")[0]

    def identity(self) -> dict[str, Any]:
        """As `Section.identity`, with the kind of device for the device."""
        return super().identity() | {"device": self.kind}
