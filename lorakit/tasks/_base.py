"""The contract of a task: rows become text, outputs become answers, answers become scores. No model, no tensors.

A task file is imported to check a recipe, before torch, datasets or scikit-learn are; it imports those where it reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from pydantic import Field, model_validator

from lorakit.config import Config


class Head(str, Enum):
    """What the model gives for an example, and so how it is batched, trained and read."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    CAUSAL = "causal"


class Data(Config):
    """Where the rows come from, and how much of them is used."""

    path: str | None = None
    """A folder with the task's files in their official layout; None: the hub."""
    revision: str | None = None
    """Revision of the hub data set."""
    limit: dict[str, int] = Field(default_factory=dict)
    """split -> number of rows to keep, from the start; for trials. `train: 64`."""
    max_length: int = Field(default=128, ge=4)
    """Tokens; a longer example is cut on the right, and how many were cut is reported."""
    padding: str = Field(default="longest", pattern="^(longest|max_length)$")
    """longest: to the batch's longest example; max_length: always to `max_length`."""
    packing: bool = False
    """Train several examples of a causal model in one row of at most `max_length` tokens, none seeing another: no
    padding, and the same steps, losses and gradients as without."""

    @model_validator(mode="after")
    def _padded_or_packed(self) -> Data:
        if self.packing and self.padding == "max_length":
            raise ValueError("packing leaves nothing to pad; leave padding: max_length out")
        return self


ASSISTANT = "assistant"
"""The role whose turns are learned."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side of a chat says. role: `system`, `user`, `assistant`, as the tokenizer's template names them."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """One row, ready for a tokenizer.

    target: label number (classification), value (regression), completion (causal); None where it is hidden.
    references: for causal tasks, every accepted answer; empty elsewhere.
    group: a part of the split that is also scored by itself (`seen`, say), its metrics named `bleu_seen`; "": none.
    eos: the tokenizer's end-of-text token stands between text and target, as the reference code's GPT-2 tasks have it.
    turns: of a chat, in the place of `text`, which then is the last question: what was said before the answer `target`.
    last_turn_only: the answer alone is trained, and not what the assistant said before it.
    where: `file:line`, for messages.
    given, target_given: from where to where `text` and `target` hold what columns of a template gave; there the text of
    a special token is text, and elsewhere it is the token.
    """

    id: str
    text: str
    pair: str | None = None
    target: int | float | str | None = None
    references: tuple[str, ...] = ()
    group: str = ""
    eos: bool = False
    turns: tuple[Turn, ...] = ()
    last_turn_only: bool = False
    where: str = ""
    given: tuple[tuple[int, int], ...] = ()
    target_given: tuple[tuple[int, int], ...] = ()


Prediction = str | int | float


class Task(Config, ABC):
    """What is learned, and how it is scored."""

    name: str

    head: ClassVar[Head]
    train_split: ClassVar[str] = "train"

    @property
    @abstractmethod
    def eval_splits(self) -> tuple[str, ...]:
        """The splits that are scored, the first one being the one that selects the best epoch."""

    @property
    def final_splits(self) -> tuple[str, ...]:
        """Splits that are scored once, after training, with the state that was kept: a test set with its answers."""
        return ()

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
        """Label names in the order of the model's outputs; empty unless the head is a classification."""
        return ()

    @abstractmethod
    def read(self, split: str, data: Data) -> list[Example]:
        """The rows of a split, in the file's order. DataError: file, line or row, what is wrong, what to do."""

    def ask(self, text: str) -> Example:
        """An example of a user's own, to see what a causal model writes."""
        return Example("prompt", text)

    @abstractmethod
    def to_prediction(self, output: Sequence[float] | str) -> Prediction:
        """From the model's output (logits, one per label; a single value; a text) to an answer."""

    @abstractmethod
    def to_reference(self, example: Example) -> Prediction | list[str]:
        """The answer that `to_prediction` ought to give, in the same form (every accepted one, for text)."""

    @abstractmethod
    def score(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction | list[str]]
    ) -> dict[str, float]:
        """The paper's metrics for one split, in the paper's unit (percent, where it prints percent).

        DataError: lengths that differ, a label that is unknown, nothing to score.
        """

    @property
    def choices(self) -> tuple[str, ...]:
        """For a causal model that is asked which of these texts is the likeliest to follow, and so writes none: its
        output is log p of each, one number per choice, and an example's target is one of them. Empty: it writes."""
        return ()

    @property
    def stops(self) -> tuple[str, ...]:
        """What ends a text besides the end-of-text token, where the tokenizer has a token for it."""
        return ()

    def rows_of(self, split: str, data: Data) -> list[str]:
        """Id of the example of each row of the official file, where one example stands for several rows."""
        return [example.id for example in self.read(split, data)]

    @property
    def protocol(self) -> str:
        """Whose scorer `score` equals, in a sentence; "" where the metrics' names say it all."""
        return ""

    def expected_rows(self) -> Mapping[str, int]:
        """split -> official number of rows, where the data set is a fixed one; a difference is reported."""
        return {}
