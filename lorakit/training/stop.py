"""Stopping by Ctrl-C and SIGTERM: the current step ends, a checkpoint is written, the run stops."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SECOND_CTRL_C_S = 1.0
"""A Ctrl-C that comes sooner after the first is not a second one: a launcher passes on, at once,
the one that the terminal has already sent to every process."""


class Interrupted(KeyboardInterrupt):
    """Raised by the first signal where it does not wait for the end of a step."""


class Stop:
    """As a context manager in the main thread: catches the signals, and restores their handlers.

    A second Ctrl-C ends the run at once. A signal that was ignored before (nohup) stays ignored.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """Of the first signal."""
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
        now = time.monotonic()
        if self.number is None:
            self.number = number
            self.at = now
            if not self.waits:
                raise Interrupted
        elif number == self.number == signal.SIGINT and now - self.at >= SECOND_CTRL_C_S:
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a stop raises `Interrupted`; so does one that was asked for before, on entry."""
        self.waits = False
        try:
            if self.number is not None:
                raise Interrupted
            yield
        finally:
            self.waits = True
