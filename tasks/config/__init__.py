"""Configuration files, and the prompts and prices they name."""
