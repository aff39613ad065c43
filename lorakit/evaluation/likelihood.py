"""How likely each of a few given texts is to follow a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from lorakit.batches import Encoded, collate
from lorakit.evaluation.predict import Progress, in_order
from lorakit.evaluation.way import of_one_length, pads_right
from lorakit.nn.logits import last_logits
from lorakit.nn.prompt import prompt_ends
from lorakit.tasks import Head


def log_likelihoods(
    model: nn.Module,
    prompts: Sequence[Encoded],
    choices: Sequence[Sequence[int]],
    pad_id: int,
    batch_size: int,
    progress: Progress | None = None,
) -> list[list[float]]:
    """log p(choice | prompt) in nats for every prompt and choice, the sum over the choice's tokens.

    choices: token ids, none empty. Choices that differ in their last token alone, such as all of one token, share a
    forward pass. batch_size: sequences at a time.
    """
    stems: dict[tuple[int, ...], list[int]] = {}
    for number, choice in enumerate(choices):
        stems.setdefault(tuple(choice[:-1]), []).append(number)
    rows = [(prompt, stem) for prompt in prompts for stem in stems]
    items = [_followed(prompt, stem) for prompt, stem in rows]

    def outputs(
        batch: Sequence[tuple[Encoded, list[int]]], device: torch.device
    ) -> list[list[float]]:
        """Of each row, what its choices get."""
        fields = collate([item for item, _ in batch], Head.CLASSIFICATION, pad_id)
        fields = {name: value.to(device) for name, value in fields.items()}
        found: dict[int, list[float]] = {}
        for part, own in _read_together(model, fields):
            found |= zip(part, together([batch[row] for row in part], own), strict=True)
        return [found[row] for row in range(len(batch))]

    def together(
        batch: Sequence[tuple[Encoded, list[int]]], fields: dict[str, Any]
    ) -> list[list[float]]:
        starts = [
            item.length - len(stem) - 1 for item, stem in batch
        ]  # the position that predicts the first token
        first = min(starts)
        fields |= prompt_ends(model, torch.tensor(starts, device=fields["input_ids"].device) + 1)
        logits = last_logits(model, fields, fields["input_ids"].shape[1] - first)
        found = []
        for row, (start, (_, stem)) in enumerate(zip(starts, batch, strict=True)):
            log_p = (
                logits[row, start - first : start - first + len(stem) + 1].float().log_softmax(-1)
            )
            own = [choices[number] for number in stems[tuple(stem)]]
            found.append(
                [
                    float(sum(log_p[place, token] for place, token in enumerate(choice)))
                    for choice in own
                ]
            )
        return found

    pairs: list[Any] = [(item, list(stem)) for item, (_, stem) in zip(items, rows, strict=True)]
    answers = iter(
        in_order(model, pairs, batch_size, outputs, progress, length=lambda pair: pair[0].length)
    )
    result = []
    for _ in prompts:
        values = [0.0] * len(choices)
        for numbers in stems.values():
            for number, value in zip(numbers, next(answers), strict=True):
                values[number] = value
        result.append(values)
    return result


def _read_together(
    model: nn.Module, fields: dict[str, Any]
) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """The rows of a batch by their numbers, and their fields: all at once, or one length after the other."""
    ids, mask = fields["input_ids"], fields["attention_mask"]
    if mask.all() or pads_right(getattr(model, "module", model), ids, mask):  # type: ignore[arg-type]
        yield list(range(len(ids))), fields
        return
    for rows in of_one_length(mask):
        length = int(mask[rows[0]].sum())
        yield rows.tolist(), {name: value[rows, :length] for name, value in fields.items()}


def _followed(prompt: Encoded, stem: Sequence[int]) -> Encoded:
    ids = [*prompt.inputs["input_ids"], *stem]
    return Encoded(prompt.id, {"input_ids": ids, "attention_mask": [1] * len(ids)}, None)
