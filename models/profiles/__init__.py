"""Histories into prompts and profiles."""
