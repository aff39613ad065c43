"""Bottleneck adapters: trained modules in the path of a frozen model, which cannot be merged."""

from __future__ import annotations

from lorakit.methods.insert._adapter import BottleneckMethod, Inserts, Module, Roles

__all__ = ["BottleneckMethod", "Inserts", "Module", "Roles"]
