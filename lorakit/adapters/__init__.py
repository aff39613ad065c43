"""Adapter files: PEFT's format, shards, and checkpoints of the reference code."""
