"""Two methods at once."""
