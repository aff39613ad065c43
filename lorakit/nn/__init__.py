"""Weights: finding and changing them. Knows torch, but no task, recipe or file."""
