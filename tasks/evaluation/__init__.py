"""Trained models into the results database."""
