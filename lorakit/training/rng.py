"""The random number generators that training may draw from: their state, as JSON."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def rng_state() -> dict[str, Any]:
    """The state of Python's, NumPy's and torch's generators, and of this process's GPU if any."""
    version, numbers, gauss = random.getstate()
    legacy: Any = np.random.get_state(legacy=True)
    kind, keys, position, has_gauss, cached = legacy
    state = {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, keys.tolist(), int(position), int(has_gauss), float(cached)],
        "torch": bytes(torch.get_rng_state().tolist()).hex(),
    }
    if torch.cuda.is_available():
        state["cuda"] = bytes(torch.cuda.get_rng_state().tolist()).hex()
    return state


def restore_rng(state: dict[str, Any]) -> None:
    """The inverse of `rng_state`.

    KeyError, TypeError, ValueError, OverflowError, RuntimeError: `state` was not written by it.
    """
    version, numbers, gauss = state["python"]
    kind, keys, position, has_gauss, cached = state["numpy"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(_bytes(state["torch"]))
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state(_bytes(state["cuda"]))


def _bytes(text: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
