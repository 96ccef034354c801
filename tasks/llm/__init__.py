"""Calls of an LLM: client, batches, rate limit, budget, paid answers."""
