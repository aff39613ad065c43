"""Which parameters of a test are for every change, and which are for `make slow`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def tier(unit: bool) -> list[pytest.MarkDecorator]:
    """The marks of a case that is in the unit tier, or in the slow one."""
    return [] if unit else [pytest.mark.slow]


def unit_or_slow(values: Iterable[Any], unit: Collection[Any], spread: bool = True) -> list[Any]:
    """Each of `values` as a parameter; those not in `unit` are slow.

    spread: a tuple is the values of several parameters.
    """
    found = []
    for value in values:
        several = value if spread and isinstance(value, tuple) else (value,)
        found.append(pytest.param(*several, marks=tier(value in unit)))
    return found
