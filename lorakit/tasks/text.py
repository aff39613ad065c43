"""A prompt and the text that should follow it, from one's own files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from lorakit.errors import DataError
from lorakit.tasks._answers import accepted_texts, printed_scores, written_text
from lorakit.tasks._base import Data, Example, Head, Prediction
from lorakit.tasks._own import Names, OwnFiles, text_of


class Text(OwnFiles):
    """A causal model continues a prompt. Equal prompts are one example when scored, with every answer accepted."""

    name: Literal["text"] = "text"
    head: ClassVar[Head] = Head.CAUSAL
    prompt: str = "prompt"
    """Column of the prompt."""
    completion: str = "completion"
    """Column of the text to write."""
    references: str | None = None
    """Column with the list of accepted texts, in the files that are scored; None: `completion` holds the one."""
    separator: str = ""
    """Added to every prompt."""
    eos: bool = False
    """The end-of-text token stands between prompt and completion, as in the reference code's GPT-2 tasks; a prompt may
    then be empty, and the completion is plain text to pretrain on."""
    metrics: Names = ("exact_match", "bleu")

    def read(self, split: str, data: Data) -> list[Example]:
        return self._to_learn(split, data) if split == self.train_split else self._to_score(split, data)

    def _to_learn(self, split: str, data: Data) -> list[Example]:
        examples = []
        for index, (where, row) in enumerate(self.own_rows(split, data, [self.prompt], self.completion)):
            answer = text_of(row, self.completion, where)
            if not answer.strip():
                raise DataError(f"{where}: column {self.completion!r} is empty, so there is nothing to learn")
            examples.append(Example(f"{split}-{index}", self._prompt(row, where), target=answer, eos=self.eos))
        return examples

    def _to_score(self, split: str, data: Data) -> list[Example]:
        column = self.references or self.completion
        groups: dict[str, tuple[int, list[str]]] = {}
        for index, (where, row) in enumerate(self.own_rows(split, data, [self.prompt], column)):
            _, accepted = groups.setdefault(self._prompt(row, where), (index, []))
            if column in row:
                accepted.extend(answer for answer in _answers(row, column, where) if answer not in accepted)
        return [
            Example(
                f"{split}-{index}",
                prompt,
                target=accepted[0] if accepted else None,
                references=tuple(accepted),
                eos=self.eos,
            )
            for prompt, (index, accepted) in groups.items()
        ]

    def _prompt(self, row: dict[str, Any], where: str) -> str:
        return text_of(row, self.prompt, where) + self.separator

    def ask(self, text: str) -> Example:
        return Example("prompt", text + self.separator, eos=self.eos)

    def to_prediction(self, output: Sequence[float] | str) -> str:
        return written_text(output).strip()

    def to_reference(self, example: Example) -> list[str]:
        return accepted_texts(example)

    def score(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction | list[str]]
    ) -> dict[str, float]:
        return printed_scores(self.metrics, predictions, references)


def _answers(row: dict[str, Any], column: str, where: str) -> list[str]:
    found = row[column] if isinstance(row[column], list) else [row[column]]
    if not found or not all(isinstance(text, str) and text.strip() for text in found):
        raise DataError(
            f"{where}: column {column!r} holds {row[column]!r}; give a text, or a list of texts, none empty"
        )
    return found


PLUGIN = Text
