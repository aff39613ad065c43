"""Classification of a user's own texts, or pairs of texts."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

from lorakit.errors import DataError, RecipeError
from lorakit.files.tables import locate, rows
from lorakit.metrics import Compared, facts_of
from lorakit.tasks._answers import label_index, label_name
from lorakit.tasks._base import Data, Example, Head
from lorakit.tasks._own_files import LabelledFiles, Names
from lorakit.tasks._remarks import Remarks, warn_of_rare


def _label_names(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [label_name(item) for item in value]
    return value


Classes = Annotated[
    tuple[str, ...], Field(min_length=2, strict=False), BeforeValidator(_label_names)
]


class Classification(LabelledFiles):
    """The model gives one of several labels for one or two texts."""

    name: Literal["classification"] = "classification"
    head: ClassVar[Head] = Head.CLASSIFICATION
    compares: ClassVar[Compared] = "labels"
    label: str = "label"
    """Column of the label."""
    classes: Classes | None = None
    """The labels, in the order of the model's outputs; None: those of the train file, sorted."""
    metrics: Names = ("accuracy",)
    """Names of metrics that compare labels."""

    @field_validator("classes")
    @classmethod
    def _each_once(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes and (len(set(classes)) < len(classes) or "" in classes):
            raise RecipeError(f"{list(classes)} contains a label twice, or an empty one")
        return classes

    # cached, because reading the train file may take seconds
    @cached_property
    def labels(self) -> tuple[str, ...]:  # type: ignore[override]
        """`classes`, or the labels of the train file: numbers by value, texts by alphabet.

        DataError: fewer than two labels, or a number of labels that a metric does not take.
        """
        labels = self.classes or self._labels_of_train()
        for name in self.metrics:
            wanted = facts_of(name).classes
            if wanted not in (None, len(labels)):
                raise DataError(
                    f"metric {name!r} is for {wanted} classes, and this task has {len(labels)}: "
                    f"{labels}"
                )
        return labels

    def _labels_of_train(self) -> tuple[str, ...]:
        path = locate(self.train)
        found: set[str] = set()
        for line, row in rows(path, [self.label]):
            name = label_name(row[self.label])
            if not name:
                raise DataError(f"{path}:{line}: no label in column {self.label!r}")
            found.add(name)
        if len(found) < 2:
            raise DataError(
                f"{path}: column {self.label!r} has only one label ({', '.join(found)})"
            )
        if all(label.isdecimal() for label in found):
            return tuple(sorted(found, key=int))
        return tuple(sorted(found))

    def read(self, split: str, data: Data) -> list[Example]:
        examples = super().read(split, data)
        if split == self.train_split:
            warn_of_rare(self.labels, Counter(example.target for example in examples), examples)
        return examples

    def stratum(self, row: dict[str, Any]) -> str:
        return label_name(row[self.label])

    def target(self, value: Any, where: str, remarks: Remarks) -> int:
        name = label_name(value)
        remarks.add_label(value, name, where)
        return label_index(name, self.labels, where)


PLUGIN = Classification
