"""Models of others that use text in their own way, or look as if they did: what ours are judged by.

Each is an own model (docs/own.md), named by its path: `models.recommenders.comparators.FILE:CLASS`.
"""
