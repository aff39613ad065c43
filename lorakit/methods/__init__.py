"""Methods: what is trained, one file per method.

They are in folders that differ in contract: `reparam` (W -> W + dW, mergeable), `subset` (existing
parameters), `insert` (modules in the path), `prompt` (tokens in the rows) and `sum` (two of these).
"""

from __future__ import annotations

from lorakit.methods._base import Attachment, Method
from lorakit.registry import Registry

methods: Registry[type[Method]] = Registry("lorakit.methods", "method")

__all__ = ["Attachment", "Method", "methods"]
