"""Permission to run code that comes with a checkpoint: given per call, by the command only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

TRUST_FLAG = "--trust-remote-code"
_granted: ContextVar[bool] = ContextVar("trust_remote_code", default=False)


@contextmanager
def trust_remote_code(granted: bool = True) -> Iterator[None]:
    """Inside this context, loading a model or tokenizer may run the Python code in its folder.

    The permission is valid for this thread only.
    """
    token = _granted.set(granted)
    try:
        yield
    finally:
        _granted.reset(token)


def is_trusted() -> bool:
    """Whether the caller is inside `trust_remote_code`."""
    return _granted.get()
