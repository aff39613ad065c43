"""`lorakit bench loss`: a training step of a causal model on E2E's lengths.

The texts are short, so that the output layer is a large part of the step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lorakit.bench._base import Bench, Measured, Setting
from lorakit.bench._models import as_trained, trained_models
from lorakit.bench._rounds import measure, saved_bytes
from lorakit.bench.step import optimized
from lorakit.errors import InputError
from lorakit.recipe.schema import Recipe
from lorakit.tasks import Head
from lorakit.training.loss import loss_sum

PROMPT, ANSWER = 34, 27
"""Mean tokens of E2E's meaning representations and texts in GPT-2's vocabulary."""


class Loss(Bench):
    """Time of lorakit's loss without logits, and of transformers' loss over all words."""

    name = "loss"
    peers = ("peft",)

    def run(self, recipe: Recipe, setting: Setting) -> Measured:
        if recipe.task.head is not Head.CAUSAL:
            raise InputError(
                f"bench loss measures causal models, and {recipe.task.name} is a "
                f"{recipe.task.head.value} task"
            )
        models = trained_models(recipe, setting)
        batch = e2e_like(models["limit"].config, setting)

        def lean(model: Any) -> Tensor:
            return loss_sum(model, batch, Head.CAUSAL, lean=True)

        def full(model: Any) -> Tensor:
            return model(**batch).loss

        ways = {"limit": full, "limit_fast": lean, "lorakit": lean} | dict.fromkeys(
            setting.against, full
        )
        steps = {
            name: optimized(models[name], lambda m, way=way: way(m)) for name, way in ways.items()
        }
        with as_trained(models):
            rounds = measure(steps, setting.rounds, setting.device)
        pairs = [("lorakit", "limit_fast"), *(("lorakit", peer) for peer in setting.against)]
        kept = {
            name: saved_bytes(lambda m=models[name], way=way: way(m), models[name])
            for name, way in ways.items()
        }
        return Measured([rounds.ratio(*pair) for pair in pairs], kept)


def e2e_like(config: Any, setting: Setting) -> dict[str, Tensor]:
    """Prompts and answers of E2E's lengths, padded to the longest; the answers are trained."""
    g = torch.Generator().manual_seed(0)
    prompts = torch.randint(PROMPT - 10, PROMPT + 11, (setting.batch,), generator=g).tolist()
    answers = torch.randint(ANSWER - 10, ANSWER + 11, (setting.batch,), generator=g).tolist()
    width = max(p + a for p, a in zip(prompts, answers, strict=True))
    ids = torch.randint(5, config.vocab_size, (setting.batch, width), generator=g)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        mask[row, : prompt + answer] = 1
        labels[row, prompt : prompt + answer] = ids[row, prompt : prompt + answer]
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: value.to(setting.device) for name, value in batch.items()}


PLUGIN = Loss()
