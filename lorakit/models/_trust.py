"""Code that comes with a checkpoint runs where the person who gives the command says so, for that call and no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

FLAG = "--trust-remote-code"
_granted: ContextVar[bool] = ContextVar("trust_remote_code", default=False)


@contextmanager
def trust_remote_code(granted: bool = True) -> Iterator[None]:
    """Inside, models and tokenizers that are loaded may run the Python code in their folder. Of this thread only."""
    token = _granted.set(granted)
    try:
        yield
    finally:
        _granted.reset(token)


def is_trusted() -> bool:
    return _granted.get()
