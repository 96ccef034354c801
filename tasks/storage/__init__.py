"""Artifacts, the data folder and object stores."""
