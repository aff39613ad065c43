"""`lorakit selftest`: whether this machine computes the same numbers in two ways, on tiny models.

A check gives the largest difference that it found. An error in a check is a finding too. Files are
temporary.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lorakit.errors import LorakitError, Stopped
from lorakit.selftest.checks import CHECKS, NotHere
from lorakit.selftest.tiny_runs import TinyRuns


@dataclass(frozen=True)
class CheckResult:
    """One check. passed: None where it could not be tried here. value: None where it has none."""

    name: str
    passed: bool | None
    value: float | None
    tolerance: float
    note: str
    seconds: float


def selftest(names: Iterable[str] = tuple(CHECKS)) -> Iterator[CheckResult]:
    """A finding for each check, as it comes. Nothing is left on the disk."""
    with tempfile.TemporaryDirectory(prefix="lorakit-selftest-") as folder:
        runs = TinyRuns(Path(folder))
        for name in names:
            yield _found(name, runs)


def _found(name: str, runs: TinyRuns) -> CheckResult:
    start = time.perf_counter()
    passed: bool | None = False
    value = None
    tolerance = 0.0
    try:
        value, tolerance, note = CHECKS[name](runs)
        passed = value <= tolerance
    except Stopped:
        raise
    except NotHere as why:
        passed = None
        note = str(why)
    except LorakitError as error:
        note = str(error)
    except Exception as error:  # of a driver, for example: finding it is the purpose of the command
        note = f"{type(error).__name__}: {error}"
    return CheckResult(name, passed, value, tolerance, note, time.perf_counter() - start)
