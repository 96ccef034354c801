"""The order of the work, and the command line."""
