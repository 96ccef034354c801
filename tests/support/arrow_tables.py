"""Interactions and items written by hand."""

import pyarrow as pa

from models.schemas import INTERACTIONS, ITEMS


def train(*rows: tuple) -> pa.Table:
    columns = zip(*[(*row, None, None)[:4] for row in rows], strict=True)
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, INTERACTIONS, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=INTERACTIONS)


def catalogue(*rows: tuple) -> pa.Table:
    padded = [dict(zip(ITEMS.names, (*row, None, None, None)[:4], strict=True)) for row in rows]
    return pa.Table.from_pylist(padded, schema=ITEMS)
