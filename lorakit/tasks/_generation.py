"""Data to text, as the reference code of the paper has it: a context in one line, the end-of-text token, a text.

Learning, each (context, text) is an example. Scoring, each context is one, with all of its texts: the reference code
keys predictions by context too.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, NamedTuple

from pydantic import Field, field_validator

from lorakit.errors import DataError
from lorakit.metrics import Weighted, facts_of
from lorakit.tasks._answers import (
    accepted_texts,
    metric_keys,
    score_texts,
    weigh_texts,
    written_text,
)
from lorakit.tasks._base import Data, Example, Head, Prediction, Task
from lorakit.tasks._files import limit_of

log = logging.getLogger(__name__)

END_OF_TEXT = "<|endoftext|>"
BLANK_LINE = "\n\n"
"""Token 628 of GPT-2, at which the reference code's decoder stops too."""


class Row(NamedTuple):
    """A row of the official file: one text in E2E, an entry with several elsewhere."""

    context: str
    texts: tuple[str, ...]
    """May be empty: the row is kept, so that rows keep their numbers, and makes no example by itself."""
    group: str = ""


class Size(NamedTuple):
    """Of an official split."""

    rows: int
    examples: int


class Generation(Task, ABC):
    """A data set of contexts and texts with a validation split, and a test split that is scored once."""

    head: ClassVar[Head] = Head.CAUSAL
    metric: ClassVar[str]
    """The official scorer's metrics, by the name of the suite."""
    also: tuple[str, ...] = Field(default=(), strict=False)
    """Metrics beside the official ones, such as bertscore, which the DART paper has. Its MoverScore and BLEURT are not
    offered: each brings a framework of its own, and the LoRA paper reports neither."""
    sizes: ClassVar[Mapping[str, Size]]
    older: ClassVar[Mapping[tuple[str, int], str]] = {}
    """(split, rows) -> what a file of that other size is known to be."""

    @property
    def eval_splits(self) -> tuple[str, ...]:
        return ("validation",)

    @property
    def final_splits(self) -> tuple[str, ...]:
        return ("test",)

    @property
    def primary(self) -> str:
        return "bleu"

    def expected_rows(self) -> Mapping[str, int]:
        """Examples: pairs of context and text to learn, contexts to score."""
        return {split: size.examples for split, size in self.sizes.items()}

    @field_validator("also")
    @classmethod
    def _are_of_texts(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        metric_keys(names, "texts")
        return names

    @abstractmethod
    def official_rows(self, split: str, path: str) -> tuple[str, list[Row]]:
        """The file or folder that was read below `path`, and its rows in order."""

    @abstractmethod
    def hub_rows(self, split: str, revision: str | None) -> tuple[str, list[Row]]:
        """The hub's data set, and its rows in order."""

    def read(self, split: str, data: Data) -> list[Example]:
        """Ids are `train-<number of the pair>`, and `<split>-<number of the context's first row>` where it is scored.

        `data.limit` counts examples, so a context that is kept keeps all of its texts.
        """
        limit = limit_of(data.limit, split, tuple(self.sizes))
        rows = self._rows(split, data)
        return (_to_learn(split, rows) if split == self.train_split else _to_score(split, rows))[
            :limit
        ]

    def rows_of(self, split: str, data: Data) -> list[str]:
        """For each row of the file the id of its example, "" where it has none: no text is kept, or beyond data.limit.

        So a file with one output per row can be scored. Where rows share an example the last one's output counts, as
        in the reference code. DataError: the training split, whose rows make several examples.
        """
        if split == self.train_split:
            raise DataError(
                f"rows of {split!r} make an example per text; outputs are scored on validation or test"
            )
        limit = limit_of(data.limit, split, tuple(self.sizes))
        rows = self._rows(split, data)
        ids = {example.text: example.id for example in _to_score(split, rows)[:limit]}
        return [ids.get(row.context, "") for row in rows]

    def _rows(self, split: str, data: Data) -> list[Row]:
        if data.path is None:
            where, rows = self.hub_rows(split, data.revision)
        else:
            where, rows = self.official_rows(split, data.path)
        official = self.sizes[split].rows
        if len(rows) != official:
            known = self.older.get((split, len(rows)), "")
            log.warning(
                "%s: %d rows; the official %s split has %d%s",
                where,
                len(rows),
                split,
                official,
                known,
            )
        return rows

    def ask(self, text: str) -> Example:
        """A context as the model has learned them, ended as they are."""
        return Example("prompt", text, eos=True)

    @property
    def stops(self) -> tuple[str, ...]:
        return (BLANK_LINE,)

    @property
    def protocol(self) -> str:
        return "; ".join(facts_of(name).protocol for name in (self.metric, *self.also))

    def to_prediction(self, output: Sequence[float] | str) -> str:
        """What stands before the end-of-text mark and the first blank line, without white space around it."""
        return written_text(output).split(END_OF_TEXT)[0].split(BLANK_LINE)[0].strip()

    def to_reference(self, example: Example) -> list[str]:
        return accepted_texts(example)

    def score(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction | list[str]]
    ) -> dict[str, float]:
        """In the units that the paper prints. A reference is a text, or a list of accepted ones."""
        return score_texts((self.metric, *self.also), predictions, references)

    def weighted(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction | list[str]]
    ) -> Weighted:
        """`score` where examples count several times, or not at all."""
        return weigh_texts((self.metric, *self.also), predictions, references)


def triples_text(triples: Iterable[Sequence[str]]) -> str:
    """`subject : property : object | subject : ...`, nothing escaped."""
    return " | ".join(" : ".join(triple) for triple in triples)


def _to_learn(split: str, rows: Iterable[Row]) -> list[Example]:
    pairs = [(row.context, text) for row in rows for text in row.texts]
    return [
        Example(f"{split}-{number}", context, target=f" {text}", eos=True)
        for number, (context, text) in enumerate(pairs)
    ]


def _to_score(split: str, rows: Iterable[Row]) -> list[Example]:
    """References in the order of the file, one that is given twice twice: NIST and CIDEr count them."""
    firsts: dict[str, tuple[int, Row]] = {}
    accepted: dict[str, list[str]] = {}
    for number, row in enumerate(rows):
        if row.texts:
            firsts.setdefault(row.context, (number, row))
            accepted.setdefault(row.context, []).extend(row.texts)
    return [
        Example(
            f"{split}-{number}",
            context,
            target=f" {accepted[context][0]}",
            references=tuple(accepted[context]),
            group=row.group,
            eos=True,
        )
        for context, (number, row) in firsts.items()
    ]
