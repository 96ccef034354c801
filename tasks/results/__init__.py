"""The results database and its queries."""
