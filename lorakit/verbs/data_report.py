"""Data report: how long the examples of a split are, what is cut or left out, and what repeats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from lorakit.batches import lengths_of
from lorakit.evaluation.answers import generates
from lorakit.files.bad_rows import Dropped
from lorakit.recipe.schema import Recipe
from lorakit.tasks import Example, Head
from lorakit.tokenizer import Tokenizer

NARROWEST_BIN = 16
"""Tokens; each bin of the histogram is twice as wide as the one before it."""


@dataclass(frozen=True)
class Bin:
    """Examples of `above` + 1 to `most` tokens."""

    above: int
    most: int
    examples: int


@dataclass(frozen=True)
class SplitReport:
    """What is in a split. Lengths are in tokens, with the answer, before anything is cut.

    examples: those that are used. cut: those that are truncated at data.max_length. dropped: cause
    -> rows that were left out. repeated: examples that are equal to an earlier one. in_training:
    examples whose text or question is also in the training split. labels: label -> examples.
    """

    examples: int
    shortest: int
    median: int
    longest: int
    histogram: list[Bin]
    cut: int
    dropped: dict[str, int] = field(default_factory=dict)
    repeated: int = 0
    in_training: int = 0
    labels: dict[str, int] = field(default_factory=dict)


def report(
    recipe: Recipe,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    dropped: Dropped,
    training: frozenset[Hashable] | None = None,
) -> SplitReport:
    """What is in a split.

    dropped: the rows that are left out. training: what the training split asks (`asked`); None: it
    is the training split.
    """
    head = recipe.task.head
    lengths = sorted(lengths_of(examples, tokenizer, head))
    # a prompt is never cut when its answer is generated
    is_cut = training is None or not generates(recipe.task)
    most = recipe.data.max_length
    questions = [asked(example) for example in examples]
    answers = [(question, e.target) for question, e in zip(questions, examples, strict=True)]
    labels: Counter[str] = Counter()
    if head is Head.CLASSIFICATION:
        names = recipe.task.labels
        labels.update(names[e.target] for e in examples if isinstance(e.target, int))
    return SplitReport(
        examples=len(examples),
        shortest=lengths[0],
        median=lengths[len(lengths) // 2],
        longest=lengths[-1],
        histogram=_bins(lengths),
        cut=sum(length > most for length in lengths) if is_cut else 0,
        dropped={cause.value: count for cause, count in dropped.items()},
        repeated=len(answers) - len(set(answers)),
        in_training=sum(question in (training or ()) for question in questions),
        labels=dict(labels.most_common()),
    )


def asked(example: Example) -> Hashable:
    """The text to classify, the question of a chat with what precedes it, or the plain text."""
    if example.whole:
        return example.target
    turns = tuple(turn.plain() for turn in example.turns)
    return (turns, example.tools) if turns else (example.text, example.pair)


def _bins(lengths: Sequence[int]) -> list[Bin]:
    found = []
    above = 0
    most = NARROWEST_BIN
    while above < lengths[-1]:
        count = sum(above < length <= most for length in lengths)
        if count or found:
            found.append(Bin(above, most, count))
        above = most
        most *= 2
    return found
