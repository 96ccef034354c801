"""Formats, rules and splits of interaction data."""
