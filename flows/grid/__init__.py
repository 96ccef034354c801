"""What only an experiment's grid of points needs."""
