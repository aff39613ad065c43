"""The contract of a task: rows become text, outputs become answers, and answers become scores.

A task does not know the model and creates no tensors. Its file is imported to validate a recipe,
before torch, datasets or scikit-learn are: it imports those in the functions that need them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from pydantic import Field, model_validator

from lorakit.config import Config
from lorakit.errors import DataError, RecipeError, did_you_mean


class Head(str, Enum):
    """The output of the model for an example. It decides batches, loss and evaluation."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    MULTILABEL = "multilabel"
    """Any number of labels for an example."""
    TOKENS = "tokens"
    """A label for each word of an example."""
    SPANS = "spans"
    """The start and the end of a part of the second text."""
    CAUSAL = "causal"


LABELLED = (Head.CLASSIFICATION, Head.MULTILABEL, Head.TOKENS)
"""The heads whose outputs are labels."""


class Data(Config):
    """Where the rows come from, how many are used, and how they are batched."""

    path: str | None = None
    """Folder with the task's files in their official layout; None: the hub."""
    revision: str | None = None
    """Revision of the data set on the hub."""
    limit: dict[str, int] = Field(default_factory=dict)
    """split -> number of rows to keep from its start, for trial runs: `{train: 64}`."""
    max_length: int = Field(default=128, ge=4)
    """Tokens per example; a longer one is truncated on the right. The log says how many examples
    have this length."""
    padding: str = Field(default="longest", pattern="^(longest|max_length)$")
    """longest: to the longest example of the batch; max_length: always to `max_length`."""
    packing: bool = False
    """Train a causal model on rows of several examples, `max_length` tokens at most. The examples
    of a row do not see each other: no padding, and the same steps, losses and gradients as
    without packing."""

    @model_validator(mode="after")
    def _padded_or_packed(self) -> Data:
        if self.packing and self.padding == "max_length":
            raise ValueError(
                "packing needs no padding; remove padding: max_length or packing: true"
            )
        return self

    def limit_of(self, split: str, splits: Sequence[str]) -> int | None:
        """Number of rows of the split to keep; None: all of them.

        splits: the names that the task knows. DataError: `split` is not one of them. RecipeError: a
        limit below 1, or of a split that does not exist.
        """
        if split not in splits:
            near = did_you_mean(split, splits)
            raise DataError(f"no split {split!r}{near} (splits: {', '.join(splits)})")
        # all limits are checked, not only the split's: a misspelt one would keep every row
        for name, limit in self.limit.items():
            if name not in splits:
                near = did_you_mean(name, splits)
                raise RecipeError(
                    f"data.limit.{name}: no such split{near} (splits: {', '.join(splits)})"
                )
            if limit < 1:
                raise RecipeError(
                    f"data.limit.{name}: {limit} rows; give 1 or more, or remove it for all rows"
                )
        return self.limit.get(split)


ASSISTANT = "assistant"
"""The role whose turns are learned."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a chat.

    role: `system`, `user` or `assistant`, as the tokenizer's chat template names them.
    """

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """One example, ready for a tokenizer."""

    id: str
    text: str
    """The text to classify, or the prompt. In a chat: the last question."""
    pair: str | None = None
    """The second text of a pair."""
    target: int | float | str | tuple[int, ...] | None = None
    """Label number (classification), value (regression), completion (causal); 0 or 1 for each label
    (multilabel), label number of each word (tokens), first and last character of the answer in
    `pair` (spans); None: hidden."""
    words: tuple[tuple[int, int], ...] = ()
    """For a head that labels tokens: (start, end) of each word in `text`."""
    references: tuple[str, ...] = ()
    """For causal tasks, every accepted answer; otherwise empty."""
    group: str = ""
    """A part of the split that is also scored separately: the metrics of the group `seen` are
    named `bleu_seen`. Empty: none."""
    eos: bool = False
    """An end-of-text token separates text and target, as in the reference code's GPT-2 tasks."""
    turns: tuple[Turn, ...] = ()
    """In a chat: the turns before the answer `target`. They replace `text` in the prompt."""
    last_turn_only: bool = False
    """In a chat: only the answer is trained, not the assistant's earlier turns."""
    where: str = ""
    """`file:line`, for messages."""
    given: tuple[tuple[int, int], ...] = ()
    """(start, end) of the parts of `text` that come from columns of a template. The text of a
    special token is plain text there; elsewhere it is the token."""
    target_given: tuple[tuple[int, int], ...] = ()
    """The same for `target`."""

    @property
    def shown_id(self) -> str:
        """The example for a message: its id, and where it is."""
        return f"{self.id} ({self.where})" if self.where else self.id


Prediction = str | int | float | list[str]
Output = Sequence[float] | Sequence[Sequence[float]] | str
Given = Sequence[Prediction | list[str]]
"""Predictions or references as a file of answers holds them."""


class Task(Config, ABC):
    """What is learned, and how it is scored."""

    name: str

    head: ClassVar[Head]
    train_split: ClassVar[str] = "train"
    final_splits: ClassVar[tuple[str, ...]] = ()
    """Splits that are scored once, after training, with the selected state: a test set with known
    answers."""
    stops: ClassVar[tuple[str, ...]] = ()
    """Texts that end generation in addition to the end-of-text token, if each is one token."""

    @property
    def eval_splits(self) -> tuple[str, ...]:
        """The splits that are scored during training. The first one selects the best epoch; without
        any, the last state is kept."""
        return ("validation",)

    @property
    def test_splits(self) -> tuple[str, ...]:
        """Splits that may be predicted for a submission; their targets may be hidden."""
        return ()

    @property
    @abstractmethod
    def primary(self) -> str:
        """The metric that the paper reports and that selects the best epoch. Higher is better."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in the order of the model's outputs; empty if the head does not classify."""
        return ()

    @abstractmethod
    def read(self, split: str, data: Data) -> list[Example]:
        """The examples of a split, in the file's order.

        DataError: the file, the line or row, what is wrong there, and what to do.
        """

    def ask(self, text: str) -> Example:
        """An example from a user's own text, to see what a causal model writes."""
        return Example("prompt", text)

    @abstractmethod
    def to_prediction(self, output: Output) -> Prediction:
        """The answer for a model's output (logits, one per label; a row of them per word; a single
        value; or a text)."""

    @abstractmethod
    def to_reference(self, example: Example) -> Prediction | list[str]:
        """The correct answer, in the form of `to_prediction`; for text, all accepted answers."""

    @abstractmethod
    def score(self, predictions: Sequence[Prediction], references: Given) -> dict[str, float]:
        """The paper's metrics for one split, in the paper's unit (percent, where it prints those).

        DataError: different lengths, an unknown label, or nothing to score.
        """

    @property
    def choices(self) -> tuple[str, ...]:
        """Texts between which a causal model chooses instead of writing one; empty: it writes.

        The output is the log-likelihood of each text after the prompt, and an example's target is
        one of the texts.
        """
        return ()

    def rows_of(self, split: str, data: Data) -> list[str]:
        """The id of the example for each row of the official file; several rows may share one."""
        return [example.id for example in self.read(split, data)]

    @property
    def protocol(self) -> str:
        """The scorer that `score` equals, in one sentence; "" if the metrics' names are enough."""
        return ""

    def expected_rows(self) -> Mapping[str, int]:
        """split -> official number of examples of a fixed data set; a difference is reported."""
        return {}
