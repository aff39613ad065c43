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
from lorakit.evaluation.decode import decode
from lorakit.fast.blocks import laid_out
from lorakit.recipe.evaluate import Decode
from lorakit.recipe.schema import Recipe

PAD, END, NEW = 0, 1, 32
SHARPNESS = 4.0
"""Factor of the random weights, without which the distribution is flat and full of ties."""
Texts = list[list[int]]


class Generate(Bench):
    """Time to write 32 tokens after prompts of 30 to 60 tokens, with the recipe's beams."""

    name = "generate"
    peers = ("transformers", "peft")
    needs_causal = True

    def run(self, recipe: Recipe, setting: Setting) -> Measured:
        # PEFT also makes the merged model, so that all variants compute the same function
        require_peer(self.name, "peft")
        torch.manual_seed(0)
        merged, adapted = _models(recipe, setting)
        ours = fast(copy.deepcopy(merged))
        ids, mask = _prompts(merged.config.vocab_size, setting)
        settings = recipe.decode.model_copy(
            update={"max_new_tokens": NEW, "no_repeat_ngram": 0, "sample": False}
        )
        ways: dict[str, Callable[[], Texts]] = {
            "lorakit": lambda: [text.ids for text in decode(ours, ids, mask, settings, (END,))],
            "transformers": lambda: _theirs(merged, ids, mask, settings),
            "peft": lambda: _theirs(adapted, ids, mask, settings),
        }
        asked = {name: ways[name] for name in ("lorakit", *setting.against)}
        # once for all batches, as in a run
        with laid_out(ours):
            rounds = measure(asked, setting.rounds, setting.device)
            # searching is deterministic, so these are the texts of the timed calls
            texts = {name: way() for name, way in asked.items()}
        notes = []
        for name in setting.against:
            same = sum(map(list.__eq__, texts["lorakit"], texts[name]))
            notes.append(f"{name}: {same} of {setting.batch} texts are the same")
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
    lengths = torch.tensor([60 - 30 * i // setting.batch for i in range(setting.batch)])
    longest = int(lengths[0])
    mask = (torch.arange(longest) >= longest - lengths.unsqueeze(1)).long()
    g = torch.Generator().manual_seed(0)
    # PAD is 0
    ids = torch.randint(2, vocabulary, mask.shape, generator=g) * mask
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
