"""Measurements behind docs/benchmarks.md and docs/statistics.md."""
