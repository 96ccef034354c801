"""Interactions into profiles, by provider."""
