"""The clock of a training run: seconds of training, and tokens per second of the last steps."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

RECENT_STEPS = 50
"""For the rate: how fast the run was before a stop, or under another load, says nothing about
now."""


class Clock:
    """training, apart, tokens: seconds of training, seconds of evaluations, and tokens before a
    stop."""

    def __init__(self, training: float = 0.0, apart: float = 0.0, tokens: int = 0) -> None:
        self.begin = time.perf_counter()
        self.before = training
        self.apart_before = apart
        self.apart_here = 0.0
        self.tokens = tokens
        self.recent = deque([(training, tokens)], maxlen=RECENT_STEPS + 1)

    @property
    def training(self) -> float:
        """Seconds."""
        return self.before + time.perf_counter() - self.begin - self.apart_here

    @property
    def apart(self) -> float:
        """Seconds of evaluations."""
        return self.apart_before + self.apart_here

    def count(self, tokens: int) -> None:
        """To be called after each step, with its tokens."""
        self.tokens += tokens
        self.recent.append((self.training, self.tokens))

    def rate(self) -> float:
        """Tokens per second of training, in the last steps of this process."""
        before, had = self.recent[0]
        now, have = self.recent[-1]
        return (have - had) / max(now - before, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, time counts as evaluation."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.apart_here += time.perf_counter() - start
