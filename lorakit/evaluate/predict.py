"""Outputs in the order of the examples, each example exactly once, whatever the number of processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn

from lorakit.batches import Encoded, collate
from lorakit.recipe.schema import Decode
from lorakit.tasks import Head

Progress = Callable[[int, int], None]


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

    return _in_order(model, items, batch_size, outputs, progress)


def generate(
    model: nn.Module, items: Sequence[Encoded], tokenizer: Any, batch_size: int, settings: Decode,
    progress: Progress | None = None,
) -> list[str]:  # fmt: skip
    """Greedy continuations of the items' tokens as text, without special tokens. Padded on the left."""
    plain: Any = getattr(model, "module", model)

    def outputs(batch: Sequence[Encoded], device: torch.device) -> list[str]:
        fields = collate(batch, Head.CLASSIFICATION, tokenizer.pad_token_id, side="left")
        inputs = {name: fields[name].to(device) for name in ("input_ids", "attention_mask")}
        ids = plain.generate(
            **inputs, max_new_tokens=settings.max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        return tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return _in_order(model, items, batch_size, outputs, progress)


@torch.inference_mode()
def _in_order(
    model: nn.Module,
    items: Sequence[Encoded],
    batch_size: int,
    outputs: Callable[..., list[Any]],
    progress: Progress | None,
) -> list[Any]:
    state = PartialState()
    device = next(model.parameters()).device
    # longest first: little padding, and a batch that does not fit in memory shows at once
    order = sorted(range(len(items)), key=lambda i: -items[i].length)[state.process_index :: state.num_processes]
    was_training = model.training
    model.eval()
    found: list[tuple[int, Any]] = []
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        found += zip(chosen, outputs([items[i] for i in chosen], device), strict=True)
        if progress is not None:
            progress(len(found), len(order))
    model.train(was_training)
    everyone = gather_object(found) if state.num_processes > 1 else found
    answers = dict(everyone)
    assert len(answers) == len(items), "an example was lost or evaluated twice"
    return [answers[i] for i in range(len(items))]
