"""Tasks over a user's own files: their fields, their rows, and examples with a label or a value."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from lorakit.errors import RecipeError, did_you_mean
from lorakit.files.tables import NumberedRow, locate, rows, take
from lorakit.metrics import facts_of
from lorakit.tasks._base import Data, Example
from lorakit.tasks._held_out import NONE, Validation, held_out
from lorakit.tasks._remarks import Remarks
from lorakit.tasks._scoring import MetricTask, metric_keys
from lorakit.tasks._template import text_of

log = logging.getLogger(__name__)


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], Field(min_length=1, strict=False), BeforeValidator(_one_or_many)]
TextColumns = Annotated[
    tuple[str, ...], Field(min_length=1, max_length=2, strict=False), BeforeValidator(_one_or_many)
]


class OwnFiles(MetricTask, ABC):
    """A user's own files, one per split, and the metrics to score them with."""

    train: str
    """A .csv, .tsv, .jsonl or .parquet file; `lorakit:NAME` is one that ships with the package."""
    validation: Validation
    """Scored during training, and selects the best epoch: a file; a share of the training file,
    such as 0.1, which is then not trained; or `none`, which keeps the last state."""
    validation_seed: int = Field(default=0, ge=0)
    """Decides which rows a share takes; all seeds of a run have the same ones."""
    test: str | None = None
    """Only predicted; its answers may be missing."""
    metrics: Names
    """Names of metrics."""
    primary_metric: str | None = Field(default=None, validate_default=True)
    """The value that selects the best epoch; None: the first value of the first metric."""

    @field_validator("metrics")
    @classmethod
    def _metrics_fit(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        metric_keys(names, cls.compares)
        return names

    @field_validator("primary_metric")
    @classmethod
    def _primary_is_given(cls, name: str | None, info: ValidationInfo) -> str | None:
        names = info.data.get("metrics")
        if names is None:  # the metrics are wrong, which is reported already
            return name
        keys = metric_keys(names, cls.compares)
        # pydantic validates fields in order, so `metrics` is there
        if name is not None and name not in keys:
            near = did_you_mean(name, keys)
            raise RecipeError(f"the metrics do not give {name!r}{near} ({', '.join(keys)})")
        lower = {key for metric in names for key in facts_of(metric).lower}
        primary = name or keys[0]
        if primary in lower:
            others = ", ".join(key for key in keys if key not in lower) or "there is none"
            raise RecipeError(
                f"a lower {primary} is better, and the state with the highest value is kept; "
                f"name another value as primary_metric ({others})"
            )
        return name

    @property
    def scored_by(self) -> tuple[str, ...]:
        return self.metrics

    @property
    def eval_splits(self) -> tuple[str, ...]:
        return () if self.validation == NONE else ("validation",)

    @property
    def test_splits(self) -> tuple[str, ...]:
        return ("test",) if self.test else ()

    @property
    def primary(self) -> str:
        return self.primary_metric or super().primary

    def own_rows(
        self,
        split: str,
        data: Data,
        columns: Sequence[str],
        answer: Sequence[str],
        remarks: Remarks,
    ) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """The id, `file:line` and the columns of each row up to `data.limit`.

        answer: columns that may be missing in a test file. remarks: logged after the last row.
        """
        limit = data.limit_of(split, (self.train_split, *self.eval_splits, *self.test_splits))
        if data.path is not None or data.revision is not None:
            raise RecipeError(
                f"data.path ({data.path}) and data.revision ({data.revision}) are for tasks with a "
                f"fixed layout; the files of the task {self.name!r} are task.train, "
                "task.validation and task.test"
            )
        path = locate(self._file_of(split))
        if split in self.test_splits:  # a test file may come without answers
            found = rows(path, columns, optional=answer)
        else:
            found = rows(path, (*columns, *answer))
        count = 0
        for line, row in take(self._part(split, found, columns), limit):
            yield f"{split}-{count}", f"{path}:{line}", row
            count += 1
        remarks.warn(count)

    def stratum(self, row: dict[str, Any]) -> str:
        """What a share of the training file takes its part of: the label, if a row has one."""
        return ""

    def _file_of(self, split: str) -> str:
        if split == "validation" and isinstance(self.validation, float):
            return self.train
        return getattr(self, split)

    def _part(
        self, split: str, found: Iterable[NumberedRow], columns: Sequence[str]
    ) -> Iterator[NumberedRow]:
        """The rows of the split: a part of the file where `validation` is a share."""
        share = self.validation
        if not isinstance(share, float) or split in self.test_splits:
            yield from found
            return
        numbered = list(found)
        texts = (repr([row[column] for column in columns]) for _, row in numbered)
        labels = (self.stratum(row) for _, row in numbered)
        held = held_out(list(zip(texts, labels, strict=True)), share, self.validation_seed)
        if split != self.train_split:
            log.info(
                "validation: %d rows are trained and %d are held out (validation_seed %d)",
                len(numbered) - len(held),
                len(held),
                self.validation_seed,
            )
        for number, row in enumerate(numbered):
            if (number in held) == (split != self.train_split):
                yield row


class LabelledFiles(OwnFiles, ABC):
    """Files with one or two texts and a label or a value in each row."""

    text: TextColumns = ("text",)
    """Column of the text, or of the two texts of a pair."""

    @property
    @abstractmethod
    def label_columns(self) -> tuple[str, ...]:
        """The columns of the label or value."""

    @abstractmethod
    def target(
        self, row: dict[str, Any], where: str, remarks: Remarks
    ) -> int | float | tuple[int, ...]:
        """The target of a row. DataError: a value in its label columns is not one."""

    def is_hidden(self, row: dict[str, Any]) -> bool:
        """Whether a row of a test file comes without its answer."""
        return all(row.get(column) in (None, "") for column in self.label_columns)

    def read(self, split: str, data: Data) -> list[Example]:
        """Texts that are missing (a null, a NaN, an empty field) are empty, and the log says so."""
        remarks = Remarks()
        examples = []
        for id, where, row in self.own_rows(split, data, self.text, self.label_columns, remarks):
            texts = []
            for column in self.text:
                is_missing = row[column] is None or row[column] != row[column]
                text = "" if is_missing else text_of(row, column, where)
                remarks.add_text(text, column, where)
                texts.append(text)
            target = None
            if split not in self.test_splits or not self.is_hidden(row):
                target = self.target(row, where, remarks)
            examples.append(Example(id, *texts, target=target, where=where))
        return examples
