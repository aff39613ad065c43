"""From a model's output to an answer, and from answers to scores: labels, numbers, texts, and the metrics over them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any

from lorakit.errors import DataError, RecipeError, TrainingError, did_you_mean
from lorakit.metrics import (
    Compared,
    Weighted,
    attempt,
    facts_of,
    joined,
    metrics,
    say_poor,
    weighted_of,
)
from lorakit.tasks._base import Example

WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+\.0+")
"""As pandas writes 1 in a .csv whose column has a gap."""


def as_label(value: object) -> str:
    """The name of a label from what a file holds: 1, 1.0, "1.0" and " 1" are "1", true is "true", a null is ""."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    name = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
    return name.partition(".")[0] if WHOLE_NUMBER.fullmatch(name) else name


def label_index(label: object, labels: Sequence[str], where: str) -> int:
    """The number of a label that is given by name or by number. DataError, with `where`: it is neither."""
    if isinstance(label, str) and label in labels:
        return labels.index(label)
    if (
        isinstance(label, Integral)
        and not isinstance(label, bool)
        and 0 <= int(label) < len(labels)
    ):
        return int(label)
    if label is None or label == "":
        raise DataError(f"{where}: no label; the labels are {_shown(labels)}")
    near = did_you_mean(label, labels) if isinstance(label, str) else ""
    raise DataError(f"{where}: {label!r} is no label of this task{near} (labels: {_shown(labels)})")


def given_label(value: object, labels: Sequence[str], where: str) -> int:
    """The number of a label that a file of answers gives: by name, where 1, 1.0 and "1" are the same, or by number
    where no name is a number. DataError, with `where`: it is neither."""
    name = as_label(value)
    if name in labels:
        return labels.index(name)
    if (
        not isinstance(value, Real)
        or isinstance(value, bool)
        or not WHOLE_NUMBER.fullmatch(f"{name}.0")
    ):
        return label_index(value, labels, where)
    named_by_numbers = any(WHOLE_NUMBER.fullmatch(f"{label}.0") for label in labels)
    return label_index(name if named_by_numbers else int(name), labels, where)


def number(value: object, where: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite value that is given as a number or as text. DataError, with `where`: it is none, or not in low..high."""
    try:
        found = (
            float(value) if isinstance(value, (str, Real)) and not isinstance(value, bool) else None
        )
    except ValueError:
        found = None
    if found is None or not math.isfinite(found):
        raise DataError(f"{where}: {value!r} is not a finite number")
    if not low <= found <= high:
        raise DataError(f"{where}: {value!r} is not in {low:g}..{high:g}")
    return found


def best_label(output: Sequence[float] | str, labels: Sequence[str]) -> str:
    """The label with the highest logit; the first of equals."""
    logits = _logits(output, len(labels))
    return labels[max(range(len(labels)), key=logits.__getitem__)]


def single_value(output: Sequence[float] | str) -> float:
    """The value of a head with one output."""
    return _logits(output, 1)[0]


def _logits(output: Sequence[float] | str, count: int) -> list[float]:
    if isinstance(output, str) or len(output) != count:
        raise DataError(
            f"the model gave {output!r} for an example, and the task needs {count} number(s)"
        )
    values = [float(value) for value in output]
    if any(math.isnan(value) for value in values):
        raise TrainingError(
            f"the model gave {values} for an example: NaN is no answer; did training diverge?"
        )
    return values


def score_labels(
    names: Sequence[str],
    labels: Sequence[str],
    predictions: Sequence[Any],
    references: Sequence[Any],
) -> dict[str, float]:
    """`printed_scores` of labels that are given by name or number."""
    return printed_scores(names, *_label_numbers(labels, predictions, references))


def weigh_labels(
    names: Sequence[str],
    labels: Sequence[str],
    predictions: Sequence[Any],
    references: Sequence[Any],
) -> Weighted:
    """`printed_weighted` of labels that are given by name or number."""
    return printed_weighted(names, *_label_numbers(labels, predictions, references))


def _label_numbers(
    labels: Sequence[str], predictions: Sequence[Any], references: Sequence[Any]
) -> tuple[list[int], list[int]]:
    return (
        [given_label(label, labels, f"prediction {i}") for i, label in enumerate(predictions)],
        [given_label(label, labels, f"reference {i}") for i, label in enumerate(references)],
    )


def score_numbers(
    names: Sequence[str], predictions: Sequence[Any], references: Sequence[Any]
) -> dict[str, float]:
    """`printed_scores` of values."""
    return printed_scores(names, *_values(predictions, references))


def weigh_numbers(
    names: Sequence[str], predictions: Sequence[Any], references: Sequence[Any]
) -> Weighted:
    """`printed_weighted` of values."""
    return printed_weighted(names, *_values(predictions, references))


def _values(
    predictions: Sequence[Any], references: Sequence[Any]
) -> tuple[list[float], list[float]]:
    return (
        [number(value, f"prediction {i}") for i, value in enumerate(predictions)],
        [number(value, f"reference {i}") for i, value in enumerate(references)],
    )


def written_text(output: object) -> str:
    """The text that a causal model wrote. DataError: it gave something else."""
    if not isinstance(output, str):
        raise DataError(f"the model gave {output!r} for an example, and the task needs a text")
    return output


def accepted_texts(example: Example) -> list[str]:
    """Every text that is accepted for an example, without white space around it. DataError: there is none."""
    if not example.references:
        raise DataError(f"{example.id}: no reference, so it can be predicted and not scored")
    return [text.strip() for text in example.references]


def printed_scores(
    names: Sequence[str],
    predictions: Sequence[Any],
    references: Sequence[Any],
    tokenize: str | None = None,
) -> dict[str, float]:
    """What the named metrics give, in the unit that papers print. DataError: nothing to score, lengths that differ."""
    scores: dict[str, float] = {}
    for name in names:
        facts = facts_of(name)
        compute = partial(metrics.get(name), predictions, references, **_tokens(name, tokenize))
        scores |= attempt(facts.keys, compute, facts.printed)
    return scores


def _tokens(name: str, tokenize: str | None) -> dict[str, str]:
    return {"tokenize": tokenize} if tokenize is not None and facts_of(name).tokenizes else {}


def printed_weighted(
    names: Sequence[str],
    predictions: Sequence[Any],
    references: Sequence[Any],
    tokenize: str | None = None,
) -> Weighted:
    """`printed_scores` where examples count several times, or not at all; only metrics that have such a form."""
    weighers = [
        (weighted_of(name), facts_of(name).printed, _tokens(name, tokenize)) for name in names
    ]
    found = (
        (weigh(predictions, references, **options), factor)
        for weigh, factor, options in weighers
        if weigh is not None
    )
    return joined(*found)


def score_texts(
    names: Sequence[str],
    predictions: Sequence[Any],
    references: Sequence[Any],
    tokenize: str | None = None,
) -> dict[str, float]:
    """`printed_scores` of texts. A reference is a text, or a list of accepted ones. DataError: what is neither.

    A metric that finds too few tokens in the references says so in the log."""
    said, accepted = _texts(predictions, references)
    for name in names:
        say_poor(name, accepted, tokenize if _tokens(name, tokenize) else None)
    return printed_scores(names, said, accepted, tokenize)


def weigh_texts(
    names: Sequence[str],
    predictions: Sequence[Any],
    references: Sequence[Any],
    tokenize: str | None = None,
) -> Weighted:
    """`printed_weighted` of texts."""
    return printed_weighted(names, *_texts(predictions, references), tokenize)


def _texts(
    predictions: Sequence[Any], references: Sequence[Any]
) -> tuple[Sequence[str], list[list[str]]]:
    lists = [[accepted] if isinstance(accepted, str) else accepted for accepted in references]
    for number, (said, accepted) in enumerate(zip(predictions, lists, strict=False)):
        if not isinstance(said, str):
            raise DataError(f"prediction {number}: {said!r} is not a text")
        if not _are_texts(accepted):
            raise DataError(
                f"reference {number}: {accepted!r}; give a text, or a list of accepted texts"
            )
    return predictions, lists


def _are_texts(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(isinstance(text, str) for text in value)
    )


def metric_keys(names: Sequence[str], of: Compared) -> tuple[str, ...]:
    """What the named metrics report. RecipeError: one that is unknown, or that compares something else."""
    for name in names:
        if facts_of(name).of != of:
            fitting = [other for other in metrics.names() if facts_of(other).of == of]
            raise RecipeError(
                f"metric {name!r} compares {facts_of(name).of}, not {of} (these do: {', '.join(fitting)})"
            )
    return tuple(key for name in names for key in facts_of(name).keys)


def _shown(labels: Sequence[str], most: int = 20) -> str:
    names = ", ".join(repr(name) for name in labels[:most])
    return names + (f" and {len(labels) - most} more" if len(labels) > most else "")
