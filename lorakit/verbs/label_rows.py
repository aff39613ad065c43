"""Label rows: how often each label of a task occurs in each split, and what it weighs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorakit.recipe.schema import Recipe
from lorakit.tasks import LABELLED, Example
from lorakit.training.class_weights import class_weights, label_counts


@dataclass(frozen=True)
class LabelRow:
    """A label, how many examples (or words) of each split have it, and its weight in the loss."""

    label: str
    count: dict[str, int]
    weight: float | None = None


def label_rows(recipe: Recipe, splits: Mapping[str, Sequence[Example]]) -> list[LabelRow]:
    """A row for each label, in the order of the model's outputs; empty without labels."""
    head = recipe.task.head
    if head not in LABELLED:
        return []
    weights = class_weights(recipe, splits[recipe.task.train_split])
    counts = {split: label_counts(head, examples) for split, examples in splits.items()}
    return [
        LabelRow(
            label,
            {split: counted[number] for split, counted in counts.items()},
            None if weights is None else weights[number],
        )
        for number, label in enumerate(recipe.task.labels)
    ]
