"""Adapters as files: lorakit's own, PEFT's format, loralib's checkpoints, and merging by file."""
