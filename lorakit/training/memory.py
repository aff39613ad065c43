"""The peak memory of a training process."""

from __future__ import annotations

import sys

import torch


def peak_mib() -> float:
    """The peak memory of the GPU, or without one of this process, in MiB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
