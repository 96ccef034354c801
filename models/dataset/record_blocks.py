"""Records of files of every format in one form: blocks of text columns and refused records."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from models.errors import BadInput

SHOWN = 500
"""Characters of a refused record that are kept."""
REFUSED = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("line", pa.large_string()),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""Records that cannot be divided into values: the number of their first line, text and fault."""

_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars", "::": "colons"}


@dataclass(frozen=True)
class Block:
    """Consecutive records of a file.

    Attributes:
        row: the number of each record's first line, or of its row, from 1; int64 (n,).
        line: each record's text, large_string (n,); null in files without lines.
        values: the wanted columns, large_string (n,) each.
        refused: the records between these that cannot be divided, schema `REFUSED`.
    """

    row: pa.Array
    line: pa.Array
    values: pa.Table
    refused: pa.Table


def require_columns(
    names: Sequence[str], wanted: Iterable[str], file: str, key: str = "", delimiter: str = ""
) -> None:
    """Refuse a file, by BadInput, that lacks a column or has two of the same name.

    `key` and `delimiter` are the settings of columns and delimiter, for advice; empty: none.
    """
    wanted = list(dict.fromkeys(wanted))
    missing = [name for name in wanted if name not in names]
    if missing:
        fix = f"Set {key} to its names" if key else "Rename its columns"
        marks = [mark for mark in _DELIMITERS if len(names) == 1 and mark in names[0]]
        if marks:
            fix = f"Check the delimiter, which seems to be {_DELIMITERS[marks[0]]}"
            fix += f": set {delimiter}" if delimiter else ""
        raise BadInput(
            f"{file}: no column {', '.join(missing)}; it has {', '.join(names)[:300]}. {fix}."
        )
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise BadInput(f"{file}: two columns are called {twice[0]}. Rename one.")


def all_records(
    blocks: Iterable[Block], file: str, wanted: Sequence[str], filled: Sequence[str] = ()
) -> pa.Table:
    """Join the blocks of a file of which every record must be good, with values in `filled`.

    Returns columns large_string (n,), empty values null; `wanted` where there are no records.

    Raises:
        BadInput: for the first record that was refused or lacks a value.
    """
    tables = [pa.table({name: pa.array([], pa.large_string()) for name in wanted})]
    for block in blocks:
        if block.refused.num_rows:
            first = block.refused.slice(0, 1).to_pylist()[0]
            raise BadInput(f"{file}, row {first['row']}: {first['reason']}. Mend or remove it.")
        table = block.values
        for place, name in enumerate(table.column_names):
            values = pc.if_else(pc.equal(table[name], ""), None, table[name])
            table = table.set_column(place, name, values)
            if name in filled and values.null_count:
                row = block.row.filter(pc.is_null(values).combine_chunks())[0]
                raise BadInput(f"{file}, row {row}: {name} is empty. Fill it in.")
        tables.append(table)
    return pa.concat_tables(tables[1:] or tables)
