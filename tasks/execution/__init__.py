"""Cached stages, worker processes and clusters."""
