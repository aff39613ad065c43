"""Encoded examples, as rows of token ids."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from lorakit.batches import IGNORE, Encoded
from lorakit.tasks import Head


def encoded(name: object, ids: list[int], target: Any = None, prompt: int | None = None) -> Encoded:
    """prompt: how many tokens are not trained on; None: no token is."""
    inputs = {"input_ids": ids, "attention_mask": [1] * len(ids)}
    trains = () if prompt is None else [IGNORE] * prompt + ids[prompt:]
    return Encoded(str(name), inputs, target, trains)


def encoded_rows(every: Iterable[list[int]]) -> list[Encoded]:
    """Rows to be asked, named by their numbers."""
    return [encoded(i, ids) for i, ids in enumerate(every)]


def separable(head: Head = Head.CLASSIFICATION, n: int = 44) -> list[Encoded]:
    """A toy task that can be learned: token 10 or token 11 is in a row, and tells the answer."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for i in range(n):
        ids = torch.randint(20, 64, (4 + i % 5,), generator=generator).tolist()
        sign = i % 2
        if head is Head.CAUSAL:
            # at the prompt's end: to find it among others takes longer than a test may
            ids, prompt = [*ids, 10 + sign, 5 + sign, 1], len(ids) + 1
            found.append(encoded(f"e{i}", ids, prompt=prompt))
            continue
        ids[i % len(ids)] = 10 + sign
        target = sign if head is Head.CLASSIFICATION else 2.0 * sign - 1
        found.append(encoded(f"e{i}", ids, target))
    return found
