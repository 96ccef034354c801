"""The base of every configuration section, and how its identity is taken."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue
from pydantic.fields import FieldInfo

NOT_IDENTITY: dict[str, JsonValue] = {"identity": False}
"""Marks a field that changes how the work is done, never its result."""
IDENTITY_IF_SET: dict[str, JsonValue] = {"identity": "if set"}
"""Marks a field that decides only where it differs from its default, so that a field added later
leaves old results valid."""


class Section(BaseModel):
    """Base of every configuration section: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def identity(self) -> dict[str, Any]:
        """The JSON-ready fields that decide the result (see the module docstring)."""
        return {
            name: _identity(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if _decides(field, getattr(self, name))
        }

    def digest(self) -> str:
        """First 16 hex digits of the sha256 of `identity()`."""
        canonical = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _decides(field: FieldInfo, value: Any) -> bool:
    extra = field.json_schema_extra
    mark = extra.get("identity") if isinstance(extra, dict) else None
    return mark is not False and not (mark == "if set" and value == field.default)


def _identity(value: Any) -> Any:
    if isinstance(value, Section):
        return value.identity()
    if isinstance(value, dict):
        return {str(key): _identity(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_identity(item) for item in value]
    return value
