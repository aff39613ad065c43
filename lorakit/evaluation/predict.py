"""Outputs in the order of the examples, each example exactly once, whatever the number of processes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor, nn

from lorakit.batches import Encoded, collate
from lorakit.evaluation.decode import decode
from lorakit.fast.blocks import laid_out
from lorakit.recipe.schema import Decode
from lorakit.tasks import Head

Progress = Callable[[int, int], None]
WORTH_LAYING_OUT = 8
"""Rows of a step of generation (examples x beams) from which weights are laid out for it: one row gains nothing."""


def predict_logits(
    model: nn.Module,
    items: Sequence[Encoded],
    head: Head,
    pad_id: int,
    batch_size: int,
    progress: Progress | None = None,
) -> list[list[float]]:
    """One row of float32 logits per item (one value, for a regression)."""

    def outputs(batch: Sequence[Encoded], device: torch.device) -> list[list[float]]:
        fields = collate(batch, head, pad_id)
        fields.pop("labels", None)
        logits = model(**{name: value.to(device) for name, value in fields.items()}).logits
        return logits.float().cpu().tolist()

    return in_order(model, items, batch_size, outputs, progress)


@dataclass(frozen=True)
class Generated:
    """A text without its end token; ended: False where max_new_tokens cut it."""

    text: str
    ended: bool


OnBatch = Callable[[Sequence[int], Sequence[Generated]], None]


def generate(
    model: nn.Module,
    items: Sequence[Encoded],
    tokenizer: Any,
    batch_size: int,
    settings: Decode,
    progress: Progress | None = None,
    on_batch: OnBatch | None = None,
    seed: int = 0,
    stops: Sequence[int] = (),
) -> list[Generated]:
    """What the model writes after each item's tokens (see `decode`), without special tokens.

    batch_size: examples at a time; each has `settings.beams` beams. on_batch: called with the numbers of the items of a
    batch and what was written to them, so that it can be saved. seed: decides the draws of `settings.sample`, each
    item's own, so that they do not depend on the batch. stops: tokens that end a text, besides the tokenizer's end.
    """
    ends = sorted({tokenizer.eos_token_id, *stops} - {None})
    plain: Any = getattr(model, "module", model)

    def outputs(batch: Sequence[Encoded], device: torch.device) -> list[Generated]:
        fields = collate(batch, Head.CLASSIFICATION, tokenizer.pad_token_id, side="left")
        ids, mask = fields["input_ids"].to(device), fields["attention_mask"].to(device)
        draws = (
            torch.stack([_draws(item, settings, seed) for item in batch]).to(device)
            if settings.sample
            else None
        )
        written = decode(plain, ids, mask, settings, ends, draws)
        texts = tokenizer.batch_decode([w.ids for w in written], skip_special_tokens=True)
        return [Generated(text, w.ended) for text, w in zip(texts, written, strict=True)]

    rows = min(batch_size, len(items)) * settings.beams
    with laid_out(plain) if rows >= WORTH_LAYING_OUT else nullcontext():
        return in_order(model, items, batch_size, outputs, progress, on_batch)


def _draws(item: Encoded, settings: Decode, seed: int) -> Tensor:
    own = (
        int.from_bytes(hashlib.blake2b(f"{seed}/{item.id}".encode(), digest_size=8).digest(), "big")
        % 2**63
    )
    return torch.rand(settings.max_new_tokens, generator=torch.Generator().manual_seed(own))


@torch.inference_mode()
def in_order(
    model: nn.Module,
    items: Sequence[Any],
    batch_size: int,
    outputs: Callable[..., list[Any]],
    progress: Progress | None,
    on_batch: Callable[[Sequence[int], Sequence[Any]], None] | None = None,
    length: Callable[[Any], int] = attrgetter("length"),
) -> list[Any]:
    """What `outputs(batch, device)` gives for each item, gathered from all processes, in the order of the items."""
    state = PartialState()
    device = next(model.parameters()).device
    # longest first: little padding, and a batch that does not fit in memory shows at once
    order = sorted(range(len(items)), key=lambda i: -length(items[i]))[
        state.process_index :: state.num_processes
    ]
    was_training = model.training
    model.eval()
    found: list[tuple[int, Any]] = []
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        new = outputs([items[i] for i in chosen], device)
        found += zip(chosen, new, strict=True)
        if on_batch is not None:
            on_batch(chosen, new)
        if progress is not None:
            progress(len(found), len(order))
    model.train(was_training)
    everyone = gather_object(found) if state.num_processes > 1 else found
    answers = dict(everyone)
    assert len(answers) == len(items), "an example was lost or evaluated twice"
    return [answers[i] for i in range(len(items))]
