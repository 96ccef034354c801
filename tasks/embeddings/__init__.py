"""Profiles into vectors."""
