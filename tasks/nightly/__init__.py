"""A night's decision and its record."""
