"""The base of every configuration section, and how its identity is taken."""

import hashlib
import json
import math
import re
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from models.config.plugins import Table
from models.credentials import credentials_of

CREDENTIAL = "credential"
"""Type of the error that refuses a credential; its message stands alone."""
Side = Literal["users", "items"]
SIDES: tuple[Side, ...] = get_args(Side)
"""The two sides that profiles can describe."""
NOT_IDENTITY: dict[str, JsonValue] = {"identity": False}
"""Marks a field that changes how the work is done, never its result."""

LARGEST = 2**31 - 1
"""The largest whole number of any setting: seeds and columns of results have 32 bits."""
Seed = Annotated[int, Field(ge=0)]


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", text):
        raise ValueError(
            "use up to 100 letters, digits, dots, dashes and underscores, a letter or digit first"
        )
    return text


Name = Annotated[str, AfterValidator(_name)]
"""The name of an experiment, and so of files and folders."""


def named(table: Table[Any]) -> tuple[Any, ...]:
    """What marks a text as the name of a table's row, one's own by import path included."""
    choices: JsonValue = [*table.shipped, "IMPORT.PATH:NAME"]
    return AfterValidator(table.known), WithJsonSchema({"enum": choices})


def require_plain(value: Any, place: str = "") -> None:
    """Refuse numbers in a value that are not finite or beyond `LARGEST`; ValueError says where."""
    if isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            require_plain(item, f"{place}{key}: " if isinstance(value, dict) else place)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place}a number must be finite")
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"{place}a whole number must not be beyond {LARGEST:,}")


def unkeyed(default: Any, **settings: Any) -> Any:
    """Declare a field that changes how the work is done, never its result; see `pydantic.Field`."""
    return Field(default, json_schema_extra=NOT_IDENTITY, **settings)


class Section(BaseModel):
    """Base of every configuration section: immutable, strict about unknown keys, no credentials."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _is_plain(cls, given: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        """Refuse `yes` as a number, which pydantic would take for 1, and extreme numbers."""
        value = validate(given)
        if isinstance(given, bool) and not isinstance(value, bool):
            raise ValueError("a number is needed, not true or false")
        if not isinstance(value, BaseModel):
            require_plain(value)
        return value

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
