"""Python's garbage collector: fewer collections, and one where a dropped model holds memory.

torch, transformers and what they import make a million objects that live as long as the process.
Each full collection visits all of them, the one at exit included: with Python's thresholds,
collections took 2 of the 13.6 s of `lorakit train` on 640 rows of MRPC.
"""

from __future__ import annotations

import atexit
import gc
from typing import Any
from weakref import WeakSet

THRESHOLDS = (50_000, 20, 100)
"""Of the three generations, in `gc.set_threshold`'s order; Python's own are 700, 10 and 10."""
LARGE_BYTES = 2**26
"""Loaded models that are smaller together are not worth a collection, which can take 0.5 s."""
_models: WeakSet[Any] = WeakSet()
"""The loaded models that are still in memory."""


def collect_less_often() -> None:
    """Raise the thresholds, and end the process without a collection; for processes that lorakit
    starts itself."""
    gc.set_threshold(*THRESHOLDS)
    atexit.register(gc.freeze)


def watch(model: Any) -> None:
    """Let `free_dropped_models` know of a torch module."""
    _models.add(model)


def free_dropped_models() -> None:
    """Free the watched models that are not used any more; for the moment before another is loaded.

    Hooks and attachments refer to their model, so it is in reference cycles. Without a collection
    the base of a seed may still be in memory while that of the next one is loaded.
    """
    if sum(tensor.nbytes for model in _models for tensor in model.parameters()) >= LARGE_BYTES:
        gc.collect()
