"""A metric that fails takes no other with it: its values are NaN, and who collects the failures says so."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from lorakit.errors import LorakitError, MetricError

log = logging.getLogger(__name__)

Failed = dict[str, str]
"""metric -> why it has no value"""

_noted: ContextVar[Failed | None] = ContextVar("noted", default=None)
_without: ContextVar[frozenset[str]] = ContextVar("without", default=frozenset())


@contextmanager
def failures() -> Iterator[Failed]:
    """Inside, a metric that fails is noted here and its values are NaN; outside, it is a MetricError."""
    found: Failed = {}
    before = _noted.set(found)
    try:
        yield found
    finally:
        _noted.reset(before)


@contextmanager
def without(keys: Iterable[str]) -> Iterator[None]:
    """Inside, metrics that give these keys and no others are not computed, and left out of the scores."""
    before = _without.set(frozenset(keys))
    try:
        yield
    finally:
        _without.reset(before)


def attempt(
    keys: Sequence[str], compute: Callable[[], dict[str, float]], factor: float = 1.0
) -> dict[str, float]:
    """What `compute` gives, times `factor`; where it fails, NaN for each key.

    MetricError: it failed, and nobody collects failures. Other errors of lorakit, such as a DataError, go through.
    """
    if _without.get().issuperset(keys):
        return {}
    try:
        return {key: value * factor for key, value in compute().items()}
    except MetricError as error:
        return _note(keys, error)
    except LorakitError:
        raise
    except Exception as error:
        log.debug("%s failed", ", ".join(keys), exc_info=error)
        known = MetricError(f"{', '.join(keys)}: {type(error).__name__}: {error}")
        known.__cause__ = error
        return _note(keys, known)


def _note(keys: Sequence[str], error: MetricError) -> dict[str, float]:
    noted = _noted.get()
    if noted is None:
        raise error
    noted.update(dict.fromkeys(keys, str(error)))
    return dict.fromkeys(keys, math.nan)
