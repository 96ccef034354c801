"""Trainings, their checkpoints and rankings."""
