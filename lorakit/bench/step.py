"""`lorakit bench step`: one training step (forward, backward and AdamW) without padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lorakit.bench._base import Bench, Measured, Setting
from lorakit.bench._models import as_trained, trained_models
from lorakit.bench._rounds import measure, saved_bytes
from lorakit.recipe.schema import Recipe
from lorakit.tasks import Head
from lorakit.training.loss import loss_sum


class Step(Bench):
    """Ratios of time, and the bytes that are kept for the backward pass."""

    name = "step"
    peers = ("peft", "loralib")

    def run(self, recipe: Recipe, setting: Setting) -> Measured:
        models = trained_models(recipe, setting)
        batch = random_batch(recipe, models["limit"], setting)
        head = recipe.task.head
        steps = {
            name: optimized(model, lambda m: loss_sum(m, batch, head))
            for name, model in models.items()
        }
        with as_trained(models):
            rounds = measure(steps, setting.rounds, setting.device)
        pairs = [("lorakit", "limit_fast"), ("lorakit", "limit")]
        pairs += [pair for peer in setting.against for pair in (("lorakit", peer), (peer, "limit"))]
        kept = {
            name: saved_bytes(lambda m=m: loss_sum(m, batch, head), m) for name, m in models.items()
        }
        return Measured([rounds.ratio(*pair) for pair in pairs], kept)


def random_batch(recipe: Recipe, model: Any, setting: Setting) -> dict[str, Tensor]:
    """Random token ids (batch, length), with one label each.

    A causal model learns the second half of the tokens instead.
    """
    g = torch.Generator().manual_seed(0)
    config, shape = model.config, (setting.batch, setting.length)
    ids = torch.randint(5, config.vocab_size, shape, generator=g)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if recipe.task.head is Head.CAUSAL:
        batch["labels"] = ids.masked_fill(torch.arange(shape[1]) < shape[1] // 2, -100)
    elif recipe.task.head is Head.REGRESSION:
        batch["labels"] = torch.rand(shape[0], generator=g)
    else:
        batch["labels"] = torch.randint(0, config.num_labels, shape[:1], generator=g)
    return {name: value.to(setting.device) for name, value in batch.items()}


def optimized(model: nn.Module, loss: Callable[[Any], Tensor]) -> Callable[[], None]:
    """A function that takes one complete training step with `loss(model)`."""
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True
    )

    def step() -> None:
        loss(model).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


PLUGIN = Step()
