"""Two proofs after training: the saved adapter reloads to the same logits, and folded in (where the method can be) it
still gives them, computed by lorakit and by plain transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from lorakit.adapters import adapter as files
from lorakit.batches import Encoded, collate
from lorakit.methods import Attachment
from lorakit.models._load import Base, load, load_dequantized
from lorakit.nn.tokens import settle
from lorakit.recipe.schema import Recipe
from lorakit.runs.result import Check
from lorakit.tasks import Head
from lorakit.verbs.plain import plain_of

TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1, "nf4": 1e-1, "int8": 1e-1}
"""Largest difference of a logit, relative to the largest logit, that folding into weights of this dtype may cause; for
quantized ones, whose products are formed in half precision or (int8) of rounded inputs, into what they stand for."""


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
    trained.to(torch.device("cpu"))  # or a GPU would have to hold the base twice

    def again(read: Callable[..., Base]) -> tuple[Base, Attachment]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(
                torch.initial_seed() + 1
            )  # what is not in the file would now be another random number
            base = read(*recipe.base())
        attachment = files.attach(
            files.read(folder), base.model, base.roles, base.newly_initialised
        )
        base.to(device)
        return base, attachment

    base, attachment = again(load)
    reloaded = difference(wanted, logits_of(base.model, probe, head, pad))
    proofs = [
        Check(
            name="reload",
            passed=reloaded <= 1e-5,
            value=reloaded,
            tolerance=1e-5,
            note="saved, loaded anew under another seed: largest difference of a logit, relative",
        )
    ]
    if not recipe.method.merges:
        return proofs
    if base.quantized:
        base, attachment = again(load_dequantized)
    attachment.merge()
    settle(base.model)
    merged = difference(wanted, logits_of(base.model, probe, head, pad))
    plain, how = _by_plain_transformers(base, wanted, probe, head, pad)
    merged = max(merged, plain)
    tolerance = TOLERANCE[recipe.model.quantize or recipe.model.dtype]
    into = f"the {recipe.model.dtype}" if recipe.model.quantize is None else "dequantized fp32"
    return [
        *proofs,
        Check(
            name="merge",
            passed=merged <= tolerance,
            value=merged,
            tolerance=tolerance,
            note=f"folded into {into} weights, {how}: largest difference of a logit, relative",
        ),
    ]


def _by_plain_transformers(
    merged: Base, wanted: Tensor, probe: Sequence[Encoded], head: Head, pad: int
) -> tuple[float, str]:
    """The difference of a stock model of the merged weights, and what was compared in words."""
    try:
        model = plain_of(merged.model)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a class of its own that takes weights from files only
        return (
            0.0,
            f"by lorakit alone, for plain transformers does not take weights from memory ({error})",
        )
    return difference(
        wanted, logits_of(model, probe, head, pad)
    ), "by lorakit and by plain transformers"
