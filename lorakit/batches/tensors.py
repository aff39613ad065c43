"""Encoded examples as tensors: one per row, padded; or several per row, packed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from lorakit.batches._encoded import IGNORE, Encoded
from lorakit.tasks import Head

WIDTH_MULTIPLE = 8
"""Widths are rounded up to it: each new width costs memory that stays (oneDNN keeps what it builds
for the shapes of a product) and time."""
NARROW = 32
"""Tokens up to which widths are rounded up to half of it, because with 8 a third of the tokens of
short sentences would be padding."""


def width_of(lengths: Iterable[int], most: int) -> int:
    """The width in tokens of a batch: its longest item, rounded up, but `most` at most."""
    longest = max(lengths)
    multiple = WIDTH_MULTIPLE if longest > NARROW else WIDTH_MULTIPLE // 2
    return min(most, -(-longest // multiple) * multiple)


def collate(
    items: Sequence[Encoded], head: Head, pad_id: int, width: int | None = None, side: str = "right"
) -> dict[str, Tensor]:
    """Tensors (batch, length) for the model, and `labels`.

    The labels are (batch, length) for a causal head and for one that labels tokens, (batch, labels)
    for several labels, (batch, 2) for spans, otherwise (batch,); there are none if the targets are
    hidden. width: tokens to pad to; None: the longest item. side: of the padding,
    "left" for generation.
    """
    length = width or max(item.length for item in items)
    batch: dict[str, Tensor] = {}
    for name in items[0].inputs:
        filler = pad_id if name == "input_ids" else 0
        rows = [_padded(item.inputs[name], length, filler, side) for item in items]
        batch[name] = torch.tensor(rows)
    if head is Head.CAUSAL:
        rows = [_padded(item.trains, length, IGNORE, side) for item in items]
        batch["labels"] = torch.tensor(rows)
    elif items[0].target is not None and head is Head.TOKENS:
        batch["labels"] = torch.tensor([_token_labels(item, length) for item in items])
    elif items[0].target is not None:
        dtype = torch.long if head in (Head.CLASSIFICATION, Head.SPANS) else torch.float
        batch["labels"] = torch.tensor([item.target for item in items], dtype=dtype)
    return batch


def _token_labels(item: Encoded, length: int) -> list[int]:
    labels = [IGNORE] * length
    assert isinstance(item.target, tuple)
    for place, label in zip(item.places, item.target, strict=True):
        labels[place] = label
    return labels


def pack(items: Sequence[Encoded], width: int, pad_id: int) -> dict[str, Tensor]:
    """Tensors (rows, length) for a causal head, with several examples per row and no padding
    between them; a row has `width` tokens at most.

    `position_ids` starts at 0 with every example, and there is no attention mask. This (with
    `use_cache=False`) tells transformers to keep the examples of a row from attending to each
    other, in every attention implementation. The first token of an example is never a label, so no
    example predicts the start of the next one.
    """
    rows = _rows(items, width)
    length = max(map(_length, rows))
    for row in rows:
        # the padding is like one more example, without labels
        padding = length - _length(row)
        row.append(Encoded("", {"input_ids": [pad_id] * padding}, None, [IGNORE] * padding))
    return {
        "input_ids": _joined(rows, lambda item: item.inputs["input_ids"]),
        "position_ids": _joined(rows, lambda item: range(item.length)),
        # the first token of an example would be predicted from the example before it
        "labels": _joined(rows, lambda item: [IGNORE, *item.trains[1:]][: item.length]),
    }


def _joined(rows: list[list[Encoded]], values: Callable[[Encoded], Sequence[int]]) -> Tensor:
    return torch.tensor([[value for item in row for value in values(item)] for row in rows])


def _rows(items: Sequence[Encoded], width: int) -> list[list[Encoded]]:
    """The items in rows: the longest first, each in the first row with room for it."""
    rows: list[list[Encoded]] = []
    for item in sorted(items, key=lambda item: -item.length):
        for row in rows:
            if _length(row) + item.length <= width:
                row.append(item)
                break
        else:
            rows.append([item])
    return rows


def _length(row: Sequence[Encoded]) -> int:
    return sum(item.length for item in row)


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device, copied without waiting for the device's earlier work."""
    # only pinned memory is copied while the device computes
    if device.type != "cuda":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


def _padded(values: Sequence[int], length: int, filler: int, side: str) -> list[int]:
    padding = [filler] * (length - len(values))
    return [*values, *padding] if side == "right" else [*padding, *values]
