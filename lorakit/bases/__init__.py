"""Base models: from a checkpoint to a model with its head, tokenizer and roles.

`lorakit.models` holds the families as data; this package loads, checks and describes the models.
"""
