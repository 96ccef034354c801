"""Results as data frames and figures, for notebooks."""

from importlib import import_module
from typing import Any

import pyarrow as pa

from models.errors import BadInput
from models.report.charts.forest_plot import forest
from tasks.results import queries
from tasks.results.queries import Rows, comparison_rows

_BY_RUN = ("metrics", "user_metrics", "epochs")
_TABLES = ("comparison", "contrasts_all", "slice_comparison", "runs", "points", "trials", *_BY_RUN)


def rows_of(experiment: str, table: str) -> Rows:
    """An experiment's rows of a table or view; BadInput for another table."""
    if table not in _TABLES:
        raise BadInput(f"{table}: there is no such table. Choose one of {', '.join(_TABLES)}.")
    own = "experiment = $experiment"
    if table in _BY_RUN:
        own = f"run_id IN (SELECT run_id FROM runs WHERE {own})"
    return queries.rows_of(experiment, f"FROM {table} WHERE {own}")


def as_frame(rows: Rows, polars: bool = False) -> Any:
    """A data frame of pandas, or of polars, which has to be installed then."""
    if polars:
        return import_module("polars").from_dicts(rows, infer_schema_length=None)
    return pa.Table.from_pylist(rows).to_pandas()


def forest_figure(experiment: str) -> Any:
    """The gains on the primary metric, in percent, with 95 % intervals: a Plotly figure."""
    from plotly.graph_objects import Figure

    return Figure(forest([row for row in comparison_rows(experiment) if row["is_primary"]]))
