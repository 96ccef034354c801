"""Columns of the tables `contrasts` and `slice_contrasts`: the fields of `Contrast`."""

from dataclasses import is_dataclass
from types import NoneType
from typing import get_args, get_type_hints

import pyarrow as pa

from models.statistics.contrasts import Contrast

_ARROW = {str: pa.string(), int: pa.int32(), float: pa.float64(), bool: pa.bool_()}
_SQL = {
    pa.string(): "VARCHAR",
    pa.int32(): "INTEGER",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
}


def _fields(record: type) -> list[pa.Field]:
    """One field per field of a record and of the records in it, nullable where it may be None."""
    found = []
    for name, hint in get_type_hints(record).items():
        if is_dataclass(hint):
            found += _fields(hint)  # type: ignore[arg-type]
            continue
        kinds = get_args(hint) or (hint,)
        found.append(pa.field(name, _ARROW[kinds[0]], nullable=NoneType in kinds))
    return found


def _texts(*names: str, nullable: bool) -> list[pa.Field]:
    return [pa.field(name, pa.string(), nullable) for name in names]


CONTRASTS = pa.schema(
    [
        *_texts("experiment", "evaluation_id", "dataset", nullable=False),
        *_fields(Contrast),
        *_texts("profile_source", "profile_provenance", nullable=True),
    ]
)
"""Grain: one experiment, point, model, arm, other arm, metric and cut-off, on test."""

SLICE_CONTRASTS = pa.schema(
    [
        *CONTRASTS,
        *_texts("kind", "slice", nullable=False),
        pa.field("low", pa.int32()),
        pa.field("high", pa.int32()),
    ]
)
"""Grain: as `CONTRASTS` with the baseline, and one slice."""


def definitions(schema: pa.Schema) -> str:
    """The columns as `CREATE TABLE` wants them."""
    return ", ".join(
        f"{field.name} {_SQL[field.type]}{'' if field.nullable else ' NOT NULL'}"
        for field in schema
    )
