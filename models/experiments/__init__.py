"""Grids, searches and how long they take."""
