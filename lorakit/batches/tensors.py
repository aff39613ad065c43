"""Encoded examples to tensors: a row each, padded; or several in a row, packed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lorakit.batches.encode import IGNORE, Encoded
from lorakit.tasks import Head


def collate(
    items: Sequence[Encoded], head: Head, pad_id: int, width: int | None = None, side: str = "right"
) -> dict[str, Tensor]:
    """Tensors of shape (batch, length) for the model, and `labels`: (batch,) or, for a causal head, (batch, length).

    width: pad to this many tokens; None: to the longest item. side: "left" for generation.
    """
    length = width or max(item.length for item in items)
    batch: dict[str, Tensor] = {}
    for name in items[0].inputs:
        filler = pad_id if name == "input_ids" else 0
        batch[name] = torch.tensor(
            [_padded(item.inputs[name], length, filler, side) for item in items]
        )
    if head is Head.CAUSAL:
        batch["labels"] = torch.tensor(
            [_padded(item.trains, length, IGNORE, side) for item in items]
        )
    elif items[0].target is not None:
        dtype = torch.long if head is Head.CLASSIFICATION else torch.float
        batch["labels"] = torch.tensor([item.target for item in items], dtype=dtype)
    return batch


def pack(items: Sequence[Encoded], width: int, pad_id: int) -> dict[str, Tensor]:
    """Rows of at most `width` tokens with several examples each, (rows, length): for a causal head, without padding
    between examples.

    `position_ids` starts at 0 with every example, and there is no attention mask: that (with `use_cache=False`) tells
    transformers to keep the examples of a row from attending to each other, in every attention implementation. The
    first token of an example is never a label, so no example predicts the next one's start.
    """
    rows: list[list[Encoded]] = []
    for item in sorted(
        items, key=lambda item: -item.length
    ):  # the longest first, each where it still fits
        row = next((row for row in rows if sum(i.length for i in row) + item.length <= width), None)
        rows.append([item]) if row is None else row.append(item)
    length = max(sum(item.length for item in row) for row in rows)
    ids, places, labels = [], [], []
    for row in rows:
        rest = length - sum(
            item.length for item in row
        )  # the padding counts as one more example, without a label
        ids.append([token for item in row for token in item.inputs["input_ids"]] + [pad_id] * rest)
        places.append([place for item in row for place in range(item.length)] + list(range(rest)))
        labels.append(
            [label for item in row for label in [IGNORE, *item.trains[1:]]] + [IGNORE] * rest
        )
    rows_of = {"input_ids": ids, "position_ids": places, "labels": labels}
    return {name: torch.tensor(values) for name, values in rows_of.items()}


def sent(value: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting until the device has done what it was asked before."""
    if device.type != "cuda":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


def _padded(values: Sequence[int], length: int, filler: int, side: str) -> list[int]:
    padding = [filler] * (length - len(values))
    return [*values, *padding] if side == "right" else [*padding, *values]
