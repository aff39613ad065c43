"""Scoring of a task by named metrics, in the unit that papers print."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from lorakit.errors import DataError, RecipeError
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
from lorakit.tasks._answers import finite_number, given_label
from lorakit.tasks._base import Prediction, Task

Given = Sequence[Prediction | list[str]]
"""Predictions or references as a file of answers holds them."""


@dataclass(frozen=True)
class MetricInput:
    """Predictions and references in the form that metrics take.

    tokenize: sacrebleu's tokenizer for the metrics that split texts; None: the official scorer's.
    """

    predictions: Sequence[Any]
    references: Sequence[Any]
    tokenize: str | None = None

    def options(self, name: str) -> dict[str, str]:
        """The keyword arguments of a metric."""
        if self.tokenize is None or not facts_of(name).tokenizes:
            return {}
        return {"tokenize": self.tokenize}


class MetricTask(Task, ABC):
    """A task whose scores are those of named metrics."""

    @property
    @abstractmethod
    def scored_by(self) -> tuple[str, ...]:
        """Names of the metrics, the one that the paper reports first."""

    @abstractmethod
    def metric_input(self, predictions: Given, references: Given) -> MetricInput:
        """Labels, numbers or texts for the metrics. DataError: something else was given."""

    def score(self, predictions: Sequence[Prediction], references: Given) -> dict[str, float]:
        """The metrics' values in the paper's unit. Labels are given by name or by number.

        A metric that finds too few tokens in the references warns in the log. DataError: nothing to
        score, different lengths, or an answer that is not of the task's form.
        """
        given = self.metric_input(predictions, references)
        scores: dict[str, float] = {}
        for name in self.scored_by:
            facts = facts_of(name)
            options = given.options(name)
            # before the metric runs, so that the warning is there if it fails
            if facts.of == "texts":
                say_poor(name, given.references, options.get("tokenize"))
            compute = partial(metrics.get(name), given.predictions, given.references, **options)
            scores |= attempt(facts.keys, compute, facts.printed)
        return scores

    def weighted(self, predictions: Sequence[Prediction], references: Given) -> Weighted:
        """`score` where examples count several times, or not at all; for resampling.

        Metrics without a weighted form are left out.
        """
        given = self.metric_input(predictions, references)
        parts = []
        for name in self.scored_by:
            weigh = weighted_of(name)
            if weigh is not None:
                part = weigh(given.predictions, given.references, **given.options(name))
                parts.append((part, facts_of(name).printed))
        return joined(*parts)


def metric_keys(names: Sequence[str], of: Compared) -> tuple[str, ...]:
    """The keys of the named metrics' values, in order.

    RecipeError: an unknown metric, or one that compares something else than `of`.
    """
    for name in names:
        compared = facts_of(name).of
        if compared != of:
            fitting = ", ".join(other for other in metrics.names() if facts_of(other).of == of)
            raise RecipeError(
                f"metric {name!r} compares {compared}, not {of} (these do: {fitting})"
            )
    return tuple(key for name in names for key in facts_of(name).keys)


def label_input(labels: Sequence[str], predictions: Given, references: Given) -> MetricInput:
    """Label numbers, from labels that are given by name or by number."""
    return MetricInput(
        [given_label(label, labels, f"prediction {i}") for i, label in enumerate(predictions)],
        [given_label(label, labels, f"reference {i}") for i, label in enumerate(references)],
    )


def number_input(predictions: Given, references: Given) -> MetricInput:
    """Finite values."""
    return MetricInput(
        [finite_number(value, f"prediction {i}") for i, value in enumerate(predictions)],
        [finite_number(value, f"reference {i}") for i, value in enumerate(references)],
    )


def text_input(predictions: Given, references: Given, tokenize: str | None = None) -> MetricInput:
    """Texts, and a list of accepted texts for each. A reference may be a single text."""
    for number, text in enumerate(predictions):
        if not isinstance(text, str):
            raise DataError(f"prediction {number}: {text!r} is not a text")
    lists = [[accepted] if isinstance(accepted, str) else accepted for accepted in references]
    for number, accepted in enumerate(lists):
        if not _are_texts(accepted):
            raise DataError(
                f"reference {number}: {accepted!r}; give a text, or a list of accepted texts"
            )
    return MetricInput(predictions, lists, tokenize)


def _are_texts(value: object) -> bool:
    if not isinstance(value, (list, tuple)):
        return False
    return len(value) > 0 and all(isinstance(text, str) for text in value)
