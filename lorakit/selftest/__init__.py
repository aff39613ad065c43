"""Two ways to the same numbers, tried on this machine."""
