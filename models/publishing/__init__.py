"""The promotion gate, and vectors for an index."""
