"""Cache keys: task name, version and sha256 of the inputs' content."""

import hashlib
import json
import platform
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from models.config import NOT_IDENTITY, Section
from models.config.plugins import digests
from tasks.storage.artifacts import PROJECT_ROOT, Handle, versions


def content(value: Any) -> Any:
    """The JSON-ready form of a task's input, in which artifacts stand for their content."""
    if isinstance(value, Handle):
        return value.sha256
    if isinstance(value, Section):
        return value.identity()
    if isinstance(value, BaseModel):
        return {
            name: content(getattr(value, name))
            for name, field in type(value).model_fields.items()
            if field.json_schema_extra != NOT_IDENTITY
        }
    if isinstance(value, Mapping):
        return {str(key): content(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [content(item) for item in value]
    return value


def cache_key(name: str, version: int, inputs: Mapping[str, Any]) -> str:
    """Readable key: `name-vVERSION-` and 32 hex digits of the inputs' sha256."""
    canonical = json.dumps(content(inputs), sort_keys=True, default=str)
    code = digests(canonical)
    canonical += json.dumps(code) if code else ""
    return f"{name}-v{version}-{hashlib.sha256(canonical.encode()).hexdigest()[:32]}"


def digest(value: Mapping[str, Any]) -> str:
    """16 hex digits over content."""
    canonical = json.dumps(content(value), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@cache
def code_versions() -> dict[str, str]:
    """Python, the packages that decide results, and a digest of the project's own code."""
    digest = hashlib.sha256()
    for package in ("models", "tasks"):
        for file in sorted((PROJECT_ROOT / package).rglob("*.py")):
            digest.update(file.relative_to(PROJECT_ROOT).as_posix().encode())
            digest.update(file.read_bytes())
    python = platform.python_version()
    return {"python": python, "code": digest.hexdigest()[:12], **versions()}
