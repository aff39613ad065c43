"""`lorakit bench generate`: beam search of a causal model, with lorakit's decoder and with others.

lorakit        lorakit's decode(), with the adapter merged
transformers   transformers' generate(), with the adapter merged
peft           transformers' generate(), with PEFT's adapter not merged, as after training
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lorakit.bases.base import DTYPES
from lorakit.bench._base import Bench, Measured, Setting, load_peers, require_peer
from lorakit.bench._models import bare, fast
from lorakit.bench._rounds import measure
from lorakit.errors import InputError
from lorakit.evaluation.decode import decode
from lorakit.fast.blocks import laid_out
from lorakit.recipe.schema import Decode, Recipe
from lorakit.tasks import Head

PAD, END, NEW = 0, 1, 32
SHARPNESS = 4.0
"""Factor of the random weights, without which the distribution is flat and full of ties."""
Texts = list[list[int]]


class Generate(Bench):
    """Time to write 32 tokens after prompts of 30 to 60 tokens, with the recipe's beams."""

    name = "generate"
    peers = ("transformers", "peft")

    def run(self, recipe: Recipe, setting: Setting) -> Measured:
        if recipe.task.head is not Head.CAUSAL:
            head = recipe.task.head.value
            raise InputError(
                f"bench generate measures causal models, and {recipe.task.name} is a {head} task"
            )
        # PEFT also makes the merged model, so that all variants compute the same function
        require_peer(self.name, "peft")
        torch.manual_seed(0)
        merged, adapted = _models(recipe, setting)
        ours = fast(copy.deepcopy(merged))
        ids, mask = _prompts(merged.config.vocab_size, setting)
        settings = recipe.decode.model_copy(
            update={"max_new_tokens": NEW, "no_repeat_ngram": 0, "sample": False}
        )
        texts: dict[str, Texts] = {}
        ways: dict[str, Callable[[], Texts]] = {
            "lorakit": lambda: [
                written.ids for written in decode(ours, ids, mask, settings, (END,))
            ],
            "transformers": lambda: _theirs(merged, ids, mask, settings),
            "peft": lambda: _theirs(adapted, ids, mask, settings),
        }
        asked = {name: ways[name] for name in ("lorakit", *setting.against)}
        kept = {
            name: lambda name=name, way=way: texts.update({name: way()})
            for name, way in asked.items()
        }
        # once for all batches, as in a run
        with laid_out(ours):
            rounds = measure(kept, setting.rounds, setting.device)
        same = {n: sum(map(list.__eq__, texts["lorakit"], texts[n])) for n in setting.against}
        notes = [f"{n}: {count} of {setting.batch} texts are the same" for n, count in same.items()]
        return Measured([rounds.ratio("lorakit", name) for name in setting.against], notes=notes)


def _models(recipe: Recipe, setting: Setting) -> tuple[Any, Any]:
    """One function twice: with the adapter merged, and with the adapter on its layers."""
    base = bare(recipe, setting.layers, 0.0)
    with torch.no_grad():
        for parameter in base.parameters():
            if parameter.ndim > 1:
                parameter.mul_(SHARPNESS)
    adapted = load_peers().with_peft(base, 4, 8, 0.0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    merged: Any = copy.deepcopy(adapted)
    merged = merged.merge_and_unload()
    for model in (merged, adapted):
        model.to(setting.device, DTYPES[setting.precision]).eval().requires_grad_(False)
    return merged, adapted


def _prompts(vocabulary: int, setting: Setting) -> tuple[Tensor, Tensor]:
    """Token ids (batch, 60) and their mask, padded on the left, the longest prompt first."""
    lengths = [60 - 30 * i // setting.batch for i in range(setting.batch)]
    ids, mask = (torch.zeros(setting.batch, lengths[0], dtype=torch.long) for _ in range(2))
    g = torch.Generator().manual_seed(0)
    for row, length in enumerate(lengths):
        ids[row, -length:] = torch.randint(2, vocabulary, (length,), generator=g)
        mask[row, -length:] = 1
    return ids.to(setting.device), mask.to(setting.device)


@torch.inference_mode()
def _theirs(model: Any, ids: Tensor, mask: Tensor, settings: Decode) -> Texts:
    beams: dict[str, Any] = {}
    if settings.beams > 1:
        beams = {"length_penalty": settings.length_penalty, "early_stopping": False}
    rows: Sequence[list[int]] = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=settings.max_new_tokens,
        num_beams=settings.beams,
        do_sample=False,
        pad_token_id=PAD,
        eos_token_id=END,
        **beams,
    )[:, ids.shape[1] :].tolist()
    return [row[: row.index(END)] if END in row else row for row in rows]


PLUGIN = Generate()
