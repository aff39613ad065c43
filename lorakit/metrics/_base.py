"""What a metric is: a function of two equally long lists, and the facts that a task needs to choose and print it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

from lorakit.errors import DataError
from lorakit.metrics._weighted import Weighted

Compared = Literal["labels", "numbers", "texts"]
Compute = Callable[..., dict[str, float]]
Weigh = Callable[..., Weighted]


@dataclass(frozen=True, slots=True)
class Facts:
    """How a metric may be used and printed."""

    of: Compared
    """What it compares: label numbers (from 0), values, or texts (a reference may be a list of accepted texts)."""
    keys: tuple[str, ...]
    """What it returns, in order. A value that needs a program which is missing is left out, or its key ends in
    `_approx`."""
    printed: float = 100.0
    """What papers print is the value times this: 100 for a fraction, 1 for a value that is printed as it is."""
    classes: int | None = None
    """The only number of classes that it is defined for."""
    lower: tuple[str, ...] = ()
    """The keys of which the lower value is the better one."""
    tokenizes: bool = False
    """It takes `tokenize=`, the name of one of sacrebleu's tokenizers, in place of the official scorer's tokens."""
    slow: tuple[str, ...] = ()
    """The keys that take about a millisecond per pair of short texts or more, and much more for long ones."""
    model: bool = False
    """It reads the texts with a model of its own."""
    protocol: str = ""
    """Where scorers differ: which one this equals, in which version, and what it does to the texts."""


def metric(facts: Facts, weighted: Weigh | None = None) -> Callable[[Compute], Compute]:
    """Declare a metric. What it computes may rely on having as many predictions as references, at least one, and at
    least one text in each reference that is a list.

    weighted: the same metric where examples count several times, or not at all, so that its differences can be tested
    (`lorakit compare`); None: it has no such form.
    """

    def declare(compute: Compute) -> Compute:
        @wraps(compute)
        def checked(
            predictions: Sequence[Any], references: Sequence[Any], **options: Any
        ) -> dict[str, float]:
            if len(predictions) != len(references):
                raise DataError(
                    f"{compute.__name__}: {len(predictions)} predictions for {len(references)} references; "
                    "score each example once"
                )
            if len(predictions) == 0:
                raise DataError(f"{compute.__name__}: no predictions, so there is nothing to score")
            if facts.of == "texts" and not all(accepted := accepted_texts(references)):
                raise DataError(
                    f"{compute.__name__}: example {accepted.index([])} (from 0) has no reference"
                )
            return compute(predictions, references, **options)

        checked.facts, checked.weighted = facts, weighted  # type: ignore[attr-defined]
        return checked

    return declare


def accepted_texts(references: Sequence[str | Sequence[str]]) -> list[list[str]]:
    """The accepted texts of each example as a list, also where there is one and it is given as a text."""
    return [[accepted] if isinstance(accepted, str) else list(accepted) for accepted in references]
