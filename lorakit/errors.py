"""What can go wrong, and which exit code it ends with.

    LorakitError                exit 1
    ├── InputError              exit 2: the user can mend it
    │   ├── RecipeError         a recipe, an override, a name that does not exist
    │   ├── DataError           a data file, a row, a label
    │   ├── TargetError         a target that matches nothing, or the wrong thing
    │   ├── ModelError          a base model that is absent or does not fit
    │   └── AdapterError        an adapter file that is absent, damaged or foreign
    ├── TrainingError           exit 1: the run cannot go on (a dead adapter, a loss that is not finite)
    ├── MetricError             exit 1: a metric's program failed, or did not answer in time
    ├── ToleranceError          exit 1: a check ran, and what it found is outside its tolerance
    └── Stopped                 exit 130 or 143: Ctrl-C or SIGTERM, after a checkpoint

Every message says what was found, where, and what to do; the offending value is in it.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class LorakitError(Exception):
    exit_code = 1


class InputError(LorakitError, ValueError):
    """A mistake in what the user gave. A ValueError too, so that pydantic attaches the path of the field."""

    exit_code = 2


class RecipeError(InputError): ...


class DataError(InputError): ...


class TargetError(InputError): ...


class ModelError(InputError): ...


class AdapterError(InputError): ...


class TrainingError(LorakitError): ...


class MetricError(LorakitError): ...


class ToleranceError(LorakitError): ...


class Stopped(LorakitError):
    """The user, or a scheduler, asked for it; nothing is wrong."""

    exit_code = 130

    def __init__(self, message: str, exit_code: int = 130):
        super().__init__(message)
        self.exit_code = exit_code


def did_you_mean(word: str, known: Iterable[str], n: int = 3) -> str:
    """`; did you mean 'query'?` for a near miss, else the empty string."""
    near = get_close_matches(word, list(known), n=n, cutoff=0.6)
    if not near:
        return ""
    return "; did you mean " + " or ".join(repr(name) for name in near) + "?"
