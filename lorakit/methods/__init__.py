"""What is trained. One file per method, in drawers that differ in contract: `reparam` (W -> W + dW, mergeable) and
`subset` (parameters that are already there)."""

from __future__ import annotations

from lorakit.methods._base import Attachment, Method
from lorakit.registry import Registry

methods: Registry[type[Method]] = Registry("lorakit.methods", "method")

__all__ = ["Attachment", "Method", "methods"]
