"""Adapters as files: PEFT's format out and in."""
