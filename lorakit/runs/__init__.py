"""Runs: their folders, their results, what is resumed, and how a trained model is opened again."""
