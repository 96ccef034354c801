"""Texts into vectors: batches, hashing, pooling."""
