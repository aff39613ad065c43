"""Ctrl-C and SIGTERM as a wish: the step that runs ends, a checkpoint is written, and then the run stops."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN = 1.0
"""Seconds."""


class Interrupted(KeyboardInterrupt):
    """The first signal, where it is not waited for a step's end."""


class Stop:
    """As a context: catches the signals, in the main thread, and puts the former handlers back. Another Ctrl-C, `AGAIN`
    or more after the first, ends at once; a signal that was ignored before (nohup) stays so."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.at = 0.0
        self.waits = True
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self.before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def _take(self, number: int, _frame: FrameType | None) -> None:
        # a launcher passes on, at once, the Ctrl-C that the terminal has sent to every process: no second wish
        if (
            number == signal.SIGINT
            and self.number == signal.SIGINT
            and time.monotonic() - self.at >= AGAIN
        ):
            raise KeyboardInterrupt
        first = self.number is None
        if first:
            self.number, self.at = number, time.monotonic()
        if first and not self.waits:
            raise Interrupted

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, and on entry if it was asked for before, a stop is an `Interrupted`."""
        self.waits = False
        try:
            if self.number is not None:
                raise Interrupted
            yield
        finally:
            self.waits = True
