"""Detected: what was found out about files while they were read, for the record of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Findings = dict[str, None]
"""Sentences, each once, in the order in which they were found."""
_found: ContextVar[Findings | None] = ContextVar("detected", default=None)


@contextmanager
def collecting_detected() -> Iterator[Findings]:
    """What is detected within the block."""
    found: Findings = {}
    token = _found.set(found)
    try:
        yield found
    finally:
        _found.reset(token)


def detected(text: str) -> None:
    """Tell the block around, if there is one. A file is told again when it is read again."""
    found = _found.get()
    if found is not None:
        found.setdefault(text)
