"""The parts of an entire run: processor time by what it was spent on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

PARTS = ("imports", "tokenising", "packing", "first step", "later steps", "proof", "rest")
"""In the order in which they are printed. later steps: with the evaluations during training.
imports: from the start of the process until the recipe or script begins. rest: loading, saving and
the evaluations before and after training."""

EVALUATION = "evaluation"
"""The evaluations during training: they are in the later steps or in the rest, as in the peers'
scripts."""


class PartsClock:
    """Adds up the processor time of named parts; parts that lie in another are taken from it, but
    those of an evaluation are its own."""

    def __init__(self) -> None:
        self.begin = time.process_time()
        self.seconds: dict[str, float] = {"imports": self.begin}
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        """Book what has passed since the last turn to the part that is open."""
        now = time.process_time()
        if self._open:
            name = EVALUATION if EVALUATION in self._open else self._open[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now

    def timed(self, owner: Any, attribute: str, name: str) -> None:
        """Book every call of a function or method of `owner` to a part."""
        plain: Callable[..., Any] = getattr(owner, attribute)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return plain(*args, **kwargs)

        setattr(owner, attribute, call)


def training_seconds(parts: Mapping[str, float]) -> float:
    """The time of the training part: its steps, with what was packed in them."""
    return sum(parts.get(name, 0.0) for name in ("packing", "first step", "later steps"))
