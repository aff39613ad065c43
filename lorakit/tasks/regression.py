"""Regression on one's own texts, or pairs of texts: one value per example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from lorakit.metrics import Weighted
from lorakit.tasks._answers import number, score_numbers, single_value, weigh_numbers
from lorakit.tasks._base import Data, Example, Head, Prediction
from lorakit.tasks._own import Names, OwnFiles, TextColumns, labelled


class Regression(OwnFiles):
    """A number, from one or two texts."""

    name: Literal["regression"] = "regression"
    head: ClassVar[Head] = Head.REGRESSION
    text: TextColumns = ("text",)
    """Column of the text, or of the two texts of a pair."""
    label: str = "label"
    """Column of the value."""
    metrics: Names = ("pearson_spearman",)

    def read(self, split: str, data: Data) -> list[Example]:
        return labelled(self, split, data, self.text, self.label, number)

    def to_prediction(self, output: Sequence[float] | str) -> float:
        return single_value(output)

    def to_reference(self, example: Example) -> float:
        return number(example.target, example.id)

    def score(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction | list[str]]
    ) -> dict[str, float]:
        return score_numbers(self.metrics, predictions, references)

    def weighted(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction | list[str]]
    ) -> Weighted:
        """`score` where examples count several times, or not at all."""
        return weigh_numbers(self.metrics, predictions, references)


PLUGIN = Regression
