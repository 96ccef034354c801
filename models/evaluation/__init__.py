"""Metrics of rankings and of predicted likes."""
