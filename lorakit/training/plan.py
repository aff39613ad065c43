"""Which examples meet in which optimizer step: a function of the seed, and of nothing else.

The plan is made over the whole data set and cut for the processes afterwards, so the steps, their examples and their
order are the same on one process or eight, and whatever the micro batch is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorakit.errors import RecipeError

GROUP = 50
"""Batches that are sorted by length together: enough to pad little, few enough to mix lengths within an epoch."""


@dataclass(frozen=True)
class Shares:
    """How a global batch is cut: `accumulation` forward passes of `micro` examples on each of `processes`."""

    processes: int
    micro: int
    accumulation: int


def share(global_batch_size: int, micro_batch_size: int | None, processes: int) -> Shares:
    """RecipeError where the global batch cannot be cut evenly: it is never changed behind the user's back."""
    if global_batch_size % processes:
        raise RecipeError(
            f"train.global_batch_size {global_batch_size} cannot be shared by {processes} processes; "
            f"take {processes * max(1, global_batch_size // processes)}, or another number of processes"
        )
    own = global_batch_size // processes
    micro = min(micro_batch_size or own, own)
    if own % micro:
        raise RecipeError(
            f"train.micro_batch_size {micro} does not divide the {own} examples that each of {processes} process(es) "
            f"has of the global batch of {global_batch_size}"
        )
    return Shares(processes, micro, own // micro)


def steps_per_epoch(examples: int, global_batch_size: int) -> int:
    """The last, smaller batch counts: no example is dropped."""
    return -(-examples // global_batch_size)


def epoch_batches(
    lengths: Sequence[int], size: int, seed: int, epoch: int, by_length: bool
) -> list[list[int]]:
    """The example numbers of every step of one epoch; each example is in exactly one batch.

    by_length: shuffled, cut into groups of `GROUP` batches, sorted by length within each, and the batches shuffled.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    if not by_length:
        return [order[i : i + size].tolist() for i in range(0, len(order), size)]
    batches = []
    for start in range(0, len(order), size * GROUP):
        group = sorted(order[start : start + size * GROUP].tolist(), key=lambda i: -lengths[i])
        batches += [group[i : i + size] for i in range(0, len(group), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def own_part(batch: Sequence[int], shares: Shares, rank: int) -> list[list[int]]:
    """The micro batches of one process: every process-th example, so that lengths are spread evenly.

    Some may be empty where the batch is the small last one.
    """
    own = list(batch[rank :: shares.processes])
    return [own[i * shares.micro : (i + 1) * shares.micro] for i in range(shares.accumulation)]
