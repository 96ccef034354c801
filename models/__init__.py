"""Pure computation: no Prefect, no DuckDB, no network, no environment, no paths of its own."""
