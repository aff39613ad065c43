"""Pure functions (predictions, references) -> {name: value}, one file per metric. No network, no state.

Values are fractions where the metric is a share or a correlation; `Facts.printed` is the factor that papers print with.
A suite, several metrics from one reading of the texts, gives values as its paper prints them.
`lorakit.metrics.as_evaluate("f1")` wraps one as an `evaluate.Metric`; importing `evaluate` takes seconds, so only who
asks pays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lorakit.errors import RecipeError
from lorakit.metrics._attempt import Failed, attempt, failures, without
from lorakit.metrics._base import Compared, Facts, Weigh, metric
from lorakit.metrics._tokens import Tokenize, say_poor
from lorakit.metrics._weighted import Weighted
from lorakit.registry import Registry

if TYPE_CHECKING:
    from lorakit.metrics._evaluate import as_evaluate

metrics: Registry[Callable[..., dict[str, float]]] = Registry("lorakit.metrics", "metric")


def facts_of(name: str) -> Facts:
    """What the metric of that name compares, returns and prints. RecipeError: no metric of that name."""
    facts = getattr(metrics.get(name), "facts", None)
    if not isinstance(facts, Facts):
        raise RecipeError(
            f"the metric {name!r} does not say what it compares; declare it with lorakit.metrics.metric"
        )
    return facts


def weighted_of(name: str) -> Weigh | None:
    """The metric of that name on weighted examples; None where it has no such form."""
    return getattr(metrics.get(name), "weighted", None)


def __getattr__(name: str) -> Any:
    if name == "as_evaluate":
        from lorakit.metrics._evaluate import as_evaluate

        return as_evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Compared",
    "Facts",
    "Failed",
    "Tokenize",
    "Weighted",
    "as_evaluate",
    "attempt",
    "facts_of",
    "failures",
    "metric",
    "metrics",
    "say_poor",
    "weighted_of",
    "without",
]
