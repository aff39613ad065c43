"""Classification of one's own texts, or pairs of texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

from lorakit.errors import DataError, RecipeError
from lorakit.metrics import Weighted, facts_of
from lorakit.tasks._answers import as_label, best_label, label_index, score_labels, weigh_labels
from lorakit.tasks._base import Data, Example, Head, Prediction
from lorakit.tasks._files import locate, rows
from lorakit.tasks._own import Names, OwnFiles, TextColumns, labelled
from lorakit.tasks._remarks import Remarks


def _as_labels(value: Any) -> Any:
    return [as_label(item) for item in value] if isinstance(value, (list, tuple)) else value


class Classification(OwnFiles):
    """One label of several, from one or two texts."""

    name: Literal["classification"] = "classification"
    head: ClassVar[Head] = Head.CLASSIFICATION
    text: TextColumns = ("text",)
    """Column of the text, or of the two texts of a pair."""
    label: str = "label"
    """Column of the label."""
    classes: (
        Annotated[tuple[str, ...], Field(min_length=2, strict=False), BeforeValidator(_as_labels)]
        | None
    ) = None
    """The labels, in the order of the model's outputs; None: those of the train file, sorted."""
    metrics: Names = ("accuracy",)

    @field_validator("classes")
    @classmethod
    def _each_once(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes and (len(set(classes)) < len(classes) or "" in classes):
            raise RecipeError(f"{list(classes)} holds a label twice, or an empty one")
        return classes

    @cached_property
    def labels(self) -> tuple[str, ...]:  # type: ignore[override]
        """`classes`, or what the train file holds: numbers by value, texts by alphabet. DataError: fewer than two."""
        labels = self.classes or self._labels_of_train()
        for name in self.metrics:
            wanted = facts_of(name).classes
            if wanted not in (None, len(labels)):
                raise DataError(
                    f"metric {name!r} is for {wanted} classes, and this task has {len(labels)}: {labels}"
                )
        return labels

    def _labels_of_train(self) -> tuple[str, ...]:
        path = locate(self.train)
        found: set[str] = set()
        for line, row in rows(path, [self.label]):
            found.add(as_label(row[self.label]))
            if "" in found:
                raise DataError(f"{path}:{line}: no label in column {self.label!r}")
        if len(found) < 2:
            raise DataError(
                f"{path}: column {self.label!r} holds one label only ({', '.join(found)})"
            )
        return tuple(
            sorted(found, key=int) if all(label.isdecimal() for label in found) else sorted(found)
        )

    def read(self, split: str, data: Data) -> list[Example]:
        labels, remarks = self.labels, Remarks()

        def target(value: Any, where: str) -> int:
            name = as_label(value)
            remarks.label(value, name, where)
            return label_index(name, labels, where)

        return labelled(self, split, data, self.text, self.label, target, remarks)

    def to_prediction(self, output: Sequence[float] | str) -> str:
        return best_label(output, self.labels)

    def to_reference(self, example: Example) -> str:
        return self.labels[label_index(example.target, self.labels, example.id)]

    def score(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction | list[str]]
    ) -> dict[str, float]:
        return score_labels(self.metrics, self.labels, predictions, references)

    def weighted(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction | list[str]]
    ) -> Weighted:
        """`score` where examples count several times, or not at all."""
        return weigh_labels(self.metrics, self.labels, predictions, references)


PLUGIN = Classification
