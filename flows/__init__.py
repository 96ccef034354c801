"""The order of the work, the command line, and the Python interface."""

from flows.api import experiment, nightly, recommend, run
