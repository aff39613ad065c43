"""Evaluation: logits and generated texts of a model, the answers in them, and their scores."""
