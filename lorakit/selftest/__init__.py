"""The self test: two ways to the same numbers, compared on this machine."""
