"""The comparison of finished runs: whether their differences are more than chance."""
