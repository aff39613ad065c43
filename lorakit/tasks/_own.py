"""A user's own files: what every task over them has, and how a row with a label becomes an example."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from lorakit.errors import RecipeError, did_you_mean
from lorakit.metrics import Compared, facts_of
from lorakit.tasks._answers import metric_keys
from lorakit.tasks._base import Data, Example, Head, Task
from lorakit.tasks._files import limit_of, locate, rows, take
from lorakit.tasks._remarks import Remarks
from lorakit.tasks._template import text_of

_COMPARED: dict[Head, Compared] = {
    Head.CLASSIFICATION: "labels",
    Head.REGRESSION: "numbers",
    Head.CAUSAL: "texts",
}


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], Field(min_length=1, strict=False), BeforeValidator(_one_or_many)]
TextColumns = Annotated[
    tuple[str, ...], Field(min_length=1, max_length=2, strict=False), BeforeValidator(_one_or_many)
]


class OwnFiles(Task, ABC):
    """Files of one's own, one per split, and the metrics to score with."""

    train: str
    """A .csv, .tsv, .jsonl or .parquet file; `lorakit:NAME` is one that ships with the package."""
    validation: str
    """Scored, and selects the best epoch."""
    test: str | None = None
    """Predicted only; its answers may be absent."""
    metrics: Names
    """Names of metrics."""
    primary_metric: str | None = Field(default=None, validate_default=True)
    """The value that selects the best epoch; None: the first that the first metric gives."""

    @field_validator("metrics")
    @classmethod
    def _metrics_fit(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        metric_keys(names, _COMPARED[cls.head])
        return names

    @field_validator("primary_metric")
    @classmethod
    def _primary_is_given(cls, name: str | None, info: ValidationInfo) -> str | None:
        keys = metric_keys(info.data.get("metrics", ()), _COMPARED[cls.head])
        if keys and name not in (None, *keys):
            raise RecipeError(
                f"the metrics do not give {name!r}{did_you_mean(str(name), keys)} ({', '.join(keys)})"
            )
        lower = {key for metric in info.data.get("metrics", ()) for key in facts_of(metric).lower}
        if keys and (name or keys[0]) in lower:
            raise RecipeError(
                f"{name or keys[0]} is the better the lower it is, and the state with the highest value is kept; "
                f"name another as primary_metric ({', '.join(k for k in keys if k not in lower) or 'none is there'})"
            )
        return name

    @property
    def eval_splits(self) -> tuple[str, ...]:
        return ("validation",)

    @property
    def test_splits(self) -> tuple[str, ...]:
        return ("test",) if self.test else ()

    @property
    def primary(self) -> str:
        return self.primary_metric or metric_keys(self.metrics, _COMPARED[self.head])[0]

    def own_rows(
        self, split: str, data: Data, columns: Sequence[str], answer: Sequence[str]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """`file:line` and the columns of each row that is kept; those of the answer may be absent in a test file."""
        limit = limit_of(
            data.limit, split, (self.train_split, *self.eval_splits, *self.test_splits)
        )
        if data.path is not None or data.revision is not None:
            raise RecipeError(
                f"data.path ({data.path}) and data.revision ({data.revision}) are for tasks with a fixed layout; "
                f"the task {self.name!r} names its own: task.train, task.validation, task.test"
            )
        path = locate(
            {"train": self.train, "validation": self.validation, "test": self.test or ""}[split]
        )
        required, optional = (
            ((*columns,), (*answer,)) if split in self.test_splits else ((*columns, *answer), ())
        )
        for line, row in take(rows(path, required, optional), limit):
            yield f"{path}:{line}", row


def labelled(
    task: OwnFiles,
    split: str,
    data: Data,
    text: Sequence[str],
    label: str,
    target: Callable[[Any, str], int | float],
    remarks: Remarks | None = None,
) -> list[Example]:
    """The examples of a split: one or two texts and a target, which is None where a test row has no label.

    A text that is missing (a null, a NaN, an empty field) is the empty one, and counted in `remarks`.
    """
    examples = []
    remarks = remarks or Remarks()
    for index, (where, row) in enumerate(task.own_rows(split, data, text, [label])):
        texts = [_text_or_empty(row, column, where) for column in text]
        for column, said in zip(text, texts, strict=True):
            remarks.text(said, column, where)
        hidden = split in task.test_splits and row.get(label) in (None, "")
        found = None if hidden else target(row[label], where)
        examples.append(Example(f"{split}-{index}", *texts, target=found, where=where))
    remarks.say(len(examples))
    return examples


def _text_or_empty(row: dict[str, Any], column: str, where: str) -> str:
    value = row[column]
    return "" if value is None or value != value else text_of(row, column, where)
