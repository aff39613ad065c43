"""`lorakit bench step`: one training step (forward, backward and AdamW) without padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
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

        def loss(model: Any) -> Tensor:
            return loss_sum(model, batch, recipe.task.head)

        pairs = [("lorakit", "limit_fast"), ("lorakit", "limit")]
        for peer in setting.against:
            pairs += [("lorakit", peer), (peer, "limit")]
        return measure_steps(models, dict.fromkeys(models, loss), pairs, setting)


def measure_steps(
    models: Mapping[str, nn.Module],
    losses: Mapping[str, Callable[[Any], Tensor]],
    pairs: Sequence[tuple[str, str]],
    setting: Setting,
) -> Measured:
    """The ratios of time of pairs of variants, and the bytes that each keeps for its backward pass.

    losses: variant -> the loss of its model.
    """
    steps = {name: optimized(models[name], loss) for name, loss in losses.items()}
    with as_trained(models):
        rounds = measure(steps, setting.rounds, setting.device)
    kept = {
        name: saved_bytes(partial(loss, models[name]), models[name])
        for name, loss in losses.items()
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
