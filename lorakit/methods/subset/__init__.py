"""Subsets: some of the model's own parameters train, so that there is nothing to merge."""

from __future__ import annotations

from lorakit.methods.subset._method import Module, Roles, Subset

__all__ = ["Module", "Roles", "Subset"]
