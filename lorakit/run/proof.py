"""Two proofs after training: the saved adapter reloads to the same logits, and folded in it still gives them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from lorakit.batches import Encoded, collate
from lorakit.hub import adapter as files
from lorakit.models._load import Base, load
from lorakit.recipe.schema import Recipe
from lorakit.report.result import Check
from lorakit.tasks import Head

TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}
"""Largest difference of a logit, relative to the largest logit, that folding into weights of this dtype may cause."""


@torch.inference_mode()
def logits_of(model: nn.Module, items: Sequence[Encoded], head: Head, pad_id: int) -> Tensor:
    """Float32 logits on the CPU, of one batch of `items`; padding positions of a causal model are left out."""
    model.eval()
    batch = collate(items, head, pad_id)
    batch.pop("labels", None)
    device = next(model.parameters()).device
    logits = model(**{name: value.to(device) for name, value in batch.items()}).logits.float().cpu()
    return logits if head is not Head.CAUSAL else logits[batch["attention_mask"].bool()]


def difference(a: Tensor, b: Tensor) -> float:
    """max |a - b| / max(1, max |a|)"""
    return float((a - b).abs().max() / a.abs().max().clamp(min=1.0))


def reload_and_merge(
    recipe: Recipe, folder: Path, trained: Base, probe: Sequence[Encoded], device: torch.device
) -> list[Check]:
    """Load base and adapter anew, under another random state, and compare with the model that was trained."""
    head, pad = recipe.task.head, trained.tokenizer.pad_token_id
    wanted = logits_of(trained.model, probe, head, pad)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch.initial_seed() + 1)  # what is not in the file would now be another random number
        again = load(recipe.model, head.value, recipe.task.labels)
    attachment = files.attach(files.read(folder), again.model, again.roles, again.fresh)
    again.model.to(device)
    reloaded = difference(wanted, logits_of(again.model, probe, head, pad))
    attachment.merge()
    merged = difference(wanted, logits_of(again.model, probe, head, pad))
    tolerance = TOLERANCE[recipe.model.dtype]
    return [
        Check(name="reload", passed=reloaded <= 1e-5, value=reloaded, tolerance=1e-5,
              note="saved, loaded anew under another seed: largest difference of a logit, relative"),
        Check(name="merge", passed=merged <= tolerance, value=merged, tolerance=tolerance,
              note=f"folded into the {recipe.model.dtype} weights: largest difference of a logit, relative"),
    ]  # fmt: skip
