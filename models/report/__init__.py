"""Words and charts of the report."""
