"""The loss of given texts under a causal model: of each text alone, on the tokens that training
trains.

It does not depend on the batch or on the number of processes, except for the last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorakit.batches import IGNORE, Encoded, collate
from lorakit.evaluation.predict import outputs_in_order
from lorakit.evaluation.strategy import ignores_right_padding, read_together
from lorakit.nn.logits import last_logits
from lorakit.nn.prompt import prompt_ends
from lorakit.nn.settings import text_config
from lorakit.tasks import Head

MOST_LOGITS = 2**27
"""Logits of a forward pass, 512 MiB in float32: a vocabulary of 150,000 would otherwise fill the
memory with a batch that training itself never forms at once."""

Fields = dict[str, Tensor]
Measure = Callable[[Tensor, Tensor], Tensor]
"""Logits (tokens, vocabulary) and the ids of these tokens -> one number, or several."""


def token_losses(
    model: nn.Module, items: Sequence[Encoded], pad_id: int, batch_size: int
) -> list[float]:
    """-log p in nats, summed over the trained tokens of each item."""
    return token_measures(model, items, pad_id, batch_size, nats_of)


def nats_of(logits: Tensor, wanted: Tensor) -> Tensor:
    """The sum of -log p."""
    return F.cross_entropy(logits, wanted, reduction="sum")


def token_measures(
    model: nn.Module, items: Sequence[Encoded], pad_id: int, batch_size: int, measure: Measure
) -> list[Any]:
    """`measure` of the trained tokens of each item, as plain numbers."""
    plain: Any = getattr(model, "module", model)
    vocabulary = text_config(plain.config).vocab_size

    def outputs(batch: Sequence[Encoded], device: torch.device) -> list[Any]:
        rows = max(1, MOST_LOGITS // (vocabulary * max(item.length for item in batch)))
        found: list[Any] = []
        for start in range(0, len(batch), rows):
            fields = collate(batch[start : start + rows], Head.CAUSAL, pad_id)
            fields = {name: value.to(device) for name, value in fields.items()}
            sums = dict(_measured(model, plain, fields, measure))
            found += torch.stack([sums[row] for row in sorted(sums)]).double().tolist()
        return found

    return outputs_in_order(model, items, batch_size, outputs)


def _measured(
    model: nn.Module, plain: Any, fields: Fields, measure: Measure
) -> Iterator[tuple[int, Tensor]]:
    """The number of each row, and the measure of its trained tokens."""
    mask = fields["attention_mask"]
    all_labels = fields.pop("labels")
    pads = bool(mask.all()) or ignores_right_padding(plain, fields["input_ids"], mask)
    for rows, length in read_together(mask, pads):
        labels = all_labels[rows, :length]
        inputs = {name: value[rows, :length] for name, value in fields.items()}
        chosen = labels != IGNORE
        # the position that predicts the first trained token
        first = max(int(chosen.any(0).int().argmax()), 1) - 1
        inputs |= prompt_ends(model, chosen.int().argmax(1))
        logits = last_logits(model, inputs, length - first)
        for row, own, wanted in zip(rows.tolist(), logits, labels[:, first + 1 :], strict=True):
            trained = wanted != IGNORE
            yield row, measure(own[:-1][trained].float(), wanted[trained])
