"""Vectors into targets."""
