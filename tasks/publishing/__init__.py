"""The published set: lists, vectors, manifest."""
