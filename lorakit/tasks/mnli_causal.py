"""MNLI for a causal model: two sentences become a question, and the likeliest of three words is the answer.

The LoRA paper trains GPT-3 on MNLI and prints neither prompt nor words; this asks as GPT-3 was asked in ANLI (Brown
et al. 2020, arXiv 2005.14165, appendix G).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from lorakit.errors import DataError, RecipeError
from lorakit.metrics import Weighted
from lorakit.tasks import _glue
from lorakit.tasks._answers import best_label, label_index, score_labels, weigh_labels
from lorakit.tasks._base import Data, Example, Head, Prediction, Task
from lorakit.tasks._glue_rows import Source, glue_rows

MNLI = _glue.VARIANTS["mnli"]
NAMES = MNLI.labels
"""entailment, neutral, contradiction"""


class MnliCausal(Task):
    """MNLI as text, scored by accuracy: the word with the highest log p after the prompt, summed over its tokens.

    `PREMISE`, newline, `Question: HYPOTHESIS True, False, or Neither?`, newline, `Answer:`, and the word after a space.
    """

    name: Literal["mnli_causal"] = "mnli_causal"
    head: ClassVar[Head] = Head.CAUSAL
    words: tuple[str, ...] = Field(default=("True", "Neither", "False"), strict=False)
    """For entailment, neutral and contradiction; the question names them too. Words of one token each compare best: of
    a longer one every token costs likelihood."""

    @field_validator("words")
    @classmethod
    def _three_that_differ(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if (
            len(words) != len(NAMES)
            or len(set(words)) < len(words)
            or not all(w and w == w.strip() for w in words)
        ):
            raise RecipeError(
                f"{list(words)}: give three words that differ, for {', '.join(NAMES)}, without white space around them"
            )
        return words

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(f" {word}" for word in self.words)

    @property
    def eval_splits(self) -> tuple[str, ...]:
        return tuple(split for split in MNLI.rows if split.startswith("validation"))

    @property
    def test_splits(self) -> tuple[str, ...]:
        return tuple(split for split in MNLI.rows if split.startswith("test"))

    @property
    def primary(self) -> str:
        return "accuracy"

    @property
    def protocol(self) -> str:
        return f"accuracy of the likeliest of {', '.join(map(repr, self.choices))} after the prompt, log p summed"

    def expected_rows(self) -> Mapping[str, int]:
        return MNLI.rows

    def read(self, split: str, data: Data) -> list[Example]:
        """Ids are `<split>-<row>`, as those of glue/mnli."""
        return [self._example(split, source) for source in glue_rows("mnli", split, data)]

    def _example(self, split: str, source: Source) -> Example:
        id, prompt = f"{split}-{source.index}", self._prompt(*source.texts)
        if split in self.test_splits:
            return Example(id, prompt)
        word = self.choices[label_index(source.label, NAMES, source.where)]
        return Example(id, prompt, target=word, references=(word,))

    def _prompt(self, premise: str, hypothesis: str) -> str:
        yes, maybe, no = self.words
        return (
            f"{premise.strip()}\nQuestion: {hypothesis.strip()} {yes}, {no}, or {maybe}?\nAnswer:"
        )

    def to_prediction(self, output: Sequence[float] | str) -> str:
        """The label of the highest of three log-likelihoods, the first of equals; or of a word or label as a text."""
        return (
            best_label(output, NAMES) if isinstance(output, (list, tuple)) else self._named(output)
        )

    def _named(self, answer: object) -> str:
        said = answer.strip() if isinstance(answer, str) else ""
        if said in self.words:
            return NAMES[self.words.index(said)]
        if said in NAMES:
            return said
        raise DataError(
            f"{answer!r} is no answer; give one of {', '.join((*NAMES, *self.words))}, or three log p"
        )

    def to_reference(self, example: Example) -> str:
        if example.target is None:
            raise DataError(f"{example.id}: no label, so it can be predicted and not scored")
        return self._named(example.target)

    def score(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction | list[str]]
    ) -> dict[str, float]:
        """Accuracy in percent. Labels are given by name or by number."""
        return score_labels(MNLI.metrics, NAMES, predictions, references)

    def weighted(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction | list[str]]
    ) -> Weighted:
        """`score` where examples count several times, or not at all."""
        return weigh_labels(MNLI.metrics, NAMES, predictions, references)


PLUGIN = MnliCausal
