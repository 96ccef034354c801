"""What a provider is asked for, and the form in which all profiles are stored."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from models.config import History, Profiles, Side
from models.profiles.card import Card
from models.profiles.prompt_templates import Template
from models.schemas import HISTORY_COUNT, HISTORY_SHA256, KEYS, LLM_CALLS, profiles_schema
from tasks.profiles.outputs import Profiled
from tasks.storage.artifacts import Handle, write_parquet


@dataclass(frozen=True)
class Request:
    """What profiles are written from: the arguments of the stage `profiles`.

    `kept` are users who keep an earlier profile, so that none is written for them.
    """

    config: Profiles
    prompt: Template
    train: Handle
    items: Handle
    imported: Handle | None = None
    side: Side = "users"
    demographics: Handle | None = None
    kept: frozenset[str] = frozenset()
    card: Card | None = None

    @property
    def inputs(self) -> dict[str, Handle]:
        """The artifacts that profiles are recorded to come from."""
        named = {
            "train": self.train,
            "items": self.items,
            "demographics": self.demographics,
            "imported": self.imported,
        }
        return {name: handle for name, handle in named.items() if handle is not None}


class Basis(NamedTuple):
    """What decides a user's profile.

    Attributes:
        history: which interactions of the user it is written from.
        writer: everything else that decides the text, JSON-ready.
    """

    history: History
    writer: Any


class Provider(NamedTuple):
    """A row of `tasks.profiles.profiles_task.PROVIDERS`.

    Attributes:
        write: writes a profile for every subject of the request that keeps none.
        basis: returns what decides a user's profile; None where that is not known.
    """

    write: Callable[[Request], Profiled]
    basis: Callable[[Request], Basis | None] = lambda _: None


def profile_rows(
    side: Side, seen: pa.Table, texts: Any, reasons: Any, keys: Iterable[str]
) -> pa.Table:
    """Join texts (or the reasons why there is none), their keys and the record of what each saw.

    All in the order of their subjects; returns `profiles_schema`.
    """
    schema = profiles_schema(KEYS[side])
    history = [seen[HISTORY_SHA256], seen[HISTORY_COUNT]]
    columns = [seen[KEYS[side]], texts, reasons, *history, pa.array(keys, pa.string())]
    return pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema)


def no_calls(inputs: Mapping[str, Handle]) -> Handle:
    """Write the bill of profiles that cost nothing."""
    return write_parquet("profiles", LLM_CALLS.empty_table(), inputs, {"part": "calls"})


def sha256_of(value: Any) -> str:
    """Hash a JSON-ready value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def prompt_hash(text: str) -> str:
    """Return the first 16 hex digits of a text's sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
