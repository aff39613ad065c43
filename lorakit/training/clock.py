"""Seconds of training, without those of evaluation, over a stop too; and tokens per second, of the last steps."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

RECENT = 50
"""Steps that a rate is of: another process, or another load of the machine, says nothing about now."""


class Clock:
    """before: seconds of training, seconds apart from it, and tokens, of what went before in another process."""

    def __init__(self, training: float = 0.0, apart: float = 0.0, tokens: int = 0) -> None:
        self.begin, self.before, self.tokens = time.perf_counter(), training, tokens
        self.apart_before, self.apart_here = apart, 0.0
        self.recent = deque([(training, tokens)], maxlen=RECENT + 1)

    @property
    def training(self) -> float:
        return self.before + time.perf_counter() - self.begin - self.apart_here

    @property
    def apart(self) -> float:
        return self.apart_before + self.apart_here

    def count(self, tokens: int) -> None:
        """After each step."""
        self.tokens += tokens
        self.recent.append((self.training, self.tokens))

    def rate(self) -> float:
        """Tokens per second of training, in the last steps of this process."""
        (before, had), (now, have) = self.recent[0], self.recent[-1]
        return (have - had) / max(now - before, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.apart_here += time.perf_counter() - start
