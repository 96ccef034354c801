"""Prices and checks of an LLM's answers."""
