"""Learned examples: what training would learn of the examples of a split, for their losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lorakit.batches import TokenRows, encode_cached
from lorakit.recipe.schema import Recipe
from lorakit.stored import RowSequence
from lorakit.tasks import Example, Task, have_turns
from lorakit.tokenizer import Tokenizer


class LearnedExamples(RowSequence[Example]):
    """`task.learned` of each example, one after the other, made when they are asked for.

    ends (examples,): where those of each example end.
    """

    def __init__(self, task: Task, examples: Sequence[Example]):
        self.task = task
        self.examples = examples
        self.has_turns = have_turns(examples)
        counts = (len(task.learned(example)) for example in examples)
        self.ends = np.cumsum(np.fromiter(counts, np.int64, len(examples)))

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def _made(self, row: int) -> Example:
        owner = int(np.searchsorted(self.ends, row, side="right"))
        return self.task.learned(self.examples[owner])[row - int(self.ends[owner])]


class LearnedRows:
    """What training would learn of the examples of a split, as tokens."""

    def __init__(self, recipe: Recipe, tokenizer: Tokenizer, examples: Sequence[Example]):
        flat = LearnedExamples(recipe.task, examples)
        self.rows: TokenRows = encode_cached(flat, tokenizer, recipe.task.head, recipe.data)
        owners = np.searchsorted(flat.ends, self.rows.owners, side="right")
        # an example has none where all of its texts are dropped
        self._starts = np.searchsorted(owners, np.arange(len(examples) + 1))

    def of(self, number: int) -> range:
        """The rows of an example."""
        return range(int(self._starts[number]), int(self._starts[number + 1]))
