"""Commands that look, and neither run nor pay."""
