"""The setup of a training run: examples, settings, and how examples become tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lorakit.batches import Encoded, collate, lengths_in, pack, to_device, width_of
from lorakit.recipe.evaluate import Evaluate
from lorakit.recipe.schema import Recipe
from lorakit.recipe.train import Train
from lorakit.tasks import Head


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Everything that decides a training run, except the model and its method."""

    examples: Sequence[Encoded]
    head: Head
    pad_id: int
    width: int | None = None
    """Pad every batch to this many tokens; None: about to its longest example, see `width_of`."""
    packed: int | None = None
    """Pack examples into rows of at most this many tokens; None: one row for each example."""
    train: Train
    evaluate: Evaluate
    seed: int
    class_weights: tuple[float, ...] | None = None
    """Of each label in the loss; None: they are equal."""
    watched: tuple[str, str] | None
    """(split, metric) that selects the best state; None: the last state is kept."""
    sees: bool = True
    """Whether the method looks at data before the first step; False: its numbers are another
    adapter's, which it would replace."""

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return max(lengths_in(self.examples))

    def tensors(self, items: Sequence[Encoded], device: torch.device) -> dict[str, Tensor]:
        """A batch on `device`; the labels of a causal head stay on the host, see `loss_sum`."""
        if self.packed is not None:
            batch = pack(items, self.packed, self.pad_id)
        else:
            width = self.width or width_of(lengths_in(items), self.longest)
            batch = collate(items, self.head, self.pad_id, width)
        token_labels = self.head is Head.CAUSAL
        return {
            name: value if name == "labels" and token_labels else to_device(value, device)
            for name, value in batch.items()
        }


def setup_of(recipe: Recipe, examples: Sequence[Encoded], pad_id: int, seed: int) -> Setup:
    """The setup of a recipe's run, without weights of classes."""
    length = recipe.data.max_length
    return Setup(
        examples=examples,
        head=recipe.task.head,
        pad_id=pad_id,
        width=length if recipe.data.padding == "max_length" else None,
        packed=length if recipe.data.packing else None,
        train=recipe.train,
        evaluate=recipe.evaluate,
        seed=seed,
        watched=recipe.watched,
    )
