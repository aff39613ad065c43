"""Seconds of training, without those of evaluation, and tokens per second; over a stop too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """before: seconds of training, seconds apart from it, and tokens, of what went before in another process."""

    def __init__(self, training: float = 0.0, apart: float = 0.0, tokens: int = 0) -> None:
        self.begin, self.before, self.tokens = time.perf_counter(), training, tokens
        self.apart_before, self.apart_here = apart, 0.0

    @property
    def training(self) -> float:
        return self.before + time.perf_counter() - self.begin - self.apart_here

    @property
    def apart(self) -> float:
        return self.apart_before + self.apart_here

    def count(self, tokens: int) -> None:
        self.tokens += tokens

    def rate(self) -> float:
        """Tokens per second of training."""
        return self.tokens / max(self.training, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.apart_here += time.perf_counter() - start
