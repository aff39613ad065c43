"""`lorakit bench generate`: beam search of a causal model, with lorakit's decoder and with others.

lorakit             lorakit's decode(), with the adapter merged
transformers        transformers' generate(), with the adapter merged and every weight frozen
transformers_best   the same as users have it: the merged model is written to disk and loaded again,
                    so that its weights are not frozen, with the fastest attention
peft                transformers' generate(), with PEFT's adapter not merged, as after training
peft_best           the same with the fastest attention and dtype of the adapter

A frozen output layer makes torch copy its weight for each token, in bf16 three times the time of a
step. PEFT freezes the base, and `from_pretrained` freezes nothing.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lorakit.bases.base import DTYPES
from lorakit.bench._base import Bench, Measured, Setting, load_peers, require_peer
from lorakit.bench._best import BEST, measure_with_best, settings, with_attention
from lorakit.bench._models import ATTENTION, bare, fast
from lorakit.bench._prompts import Prompts, prompts_of, real_base
from lorakit.bench._texts import Texts, compared, theirs
from lorakit.errors import InputError
from lorakit.evaluation.decode import decode
from lorakit.fast.blocks import laid_out
from lorakit.recipe.evaluate import Decode
from lorakit.recipe.schema import Recipe

NEW = 32
SHARPNESS = 4.0
"""Factor of the random weights, without which the distribution is flat and full of ties."""
CHANGE = {"random": 0.02, "checkpoint": 0.002}
"""Standard deviation of the adapter's B, so that it changes the texts and does not destroy them."""


class Generate(Bench):
    """Time to write 32 tokens after prompts of some 30 to 60 tokens, with the recipe's beams.

    All ways get one batch of the same prompts, padded to one width.
    """

    name = "generate"
    peers = ("transformers", "transformers_best", "peft", "peft_best")
    needs_causal = True
    reads = ("layers", "batch", "precision", "weights")

    def run(self, recipe: Recipe, setting: Setting) -> Measured:
        # PEFT also makes the merged model, so that all variants compute the same function
        require_peer(self.name, "peft")
        if setting.weights == "checkpoint" and setting.layers is not None:
            raise InputError(
                f"--layers {setting.layers}: the checkpoint has its own number of layers; leave it "
                "out, or take --weights random"
            )
        torch.manual_seed(0)
        prompts = prompts_of(recipe, setting)
        wanted = recipe.decode.model_copy(
            update={"max_new_tokens": NEW, "no_repeat_ngram": 0, "sample": False}
        )
        with tempfile.TemporaryDirectory() as folder:
            ways = _ways(recipe, setting, Path(folder))
        return _measured(ways, prompts, wanted, setting)


def _measured(ways: _Ways, prompts: Prompts, wanted: Decode, setting: Setting) -> Measured:
    write = partial(theirs, prompts=prompts, settings=wanted)
    ours = ways.ours
    asked: dict[str, Callable[[], Texts]] = {"lorakit": lambda: _lorakits(ours, prompts, wanted)}
    plain = [name for name in setting.against if not name.endswith(BEST)]
    asked |= {name: partial(write, ways.models[name]) for name in plain}
    tried = {
        name: {said: partial(write, model) for said, model in each.items()}
        for name, each in ways.tried.items()
    }
    # once for all batches, as in a run
    with laid_out(ours):
        rounds, best = measure_with_best(asked, tried, setting.rounds, setting.device)
        asked |= {one.name: tried[one.name][one.setting] for one in best}
        # searching is deterministic, so these are the texts of the timed calls
        texts = {name: way() for name, way in asked.items()}
    return Measured(
        [rounds.ratio("lorakit", name) for name in setting.against],
        notes=compared(ways.merged, prompts, texts, wanted.length_penalty),
        best=best,
        times={"generate": rounds},
    )


@dataclass(frozen=True)
class _Ways:
    """One function in several models. tried: peer at its best -> setting -> model."""

    merged: Any
    ours: Any
    models: dict[str, Any]
    tried: dict[str, dict[str, Any]]


def _ways(recipe: Recipe, setting: Setting, folder: Path) -> _Ways:
    dtype = DTYPES[setting.precision]
    adapted = _adapted(recipe, setting)
    merged: Any = copy.deepcopy(adapted)
    merged = merged.merge_and_unload().to(setting.device, dtype).eval()
    tried: dict[str, dict[str, Any]] = {}
    if "transformers_best" in setting.against:
        merged.save_pretrained(folder)
        tried["transformers_best"] = dict(_loaded(folder, setting))
    if "peft_best" in setting.against:
        tried["peft_best"] = dict(_peft(adapted, setting))
    merged.requires_grad_(False)
    adapted.to(setting.device, dtype).eval().requires_grad_(False)
    models = {"transformers": merged, "peft": adapted}
    return _Ways(merged, fast(copy.deepcopy(merged)), models, tried)


def _loaded(folder: Path, setting: Setting) -> Iterator[tuple[str, Any]]:
    """The merged model as `from_pretrained` gives it. Source: the page "Text generation" of
    transformers."""
    from transformers import AutoModelForCausalLM

    for said, attention, _ in settings(has_adapters=False, is_half=False):
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=DTYPES[setting.precision], attn_implementation=attention
        )
        yield said, model.to(setting.device).eval()


def _peft(adapted: Any, setting: Setting) -> Iterator[tuple[str, Any]]:
    """PEFT's model with its adapter in float32 or in the base's dtype."""
    dtype = DTYPES[setting.precision]
    for said, attention, autocast in settings(has_adapters=True, is_half=dtype.itemsize < 4):
        model = copy.deepcopy(adapted).to(setting.device, dtype).eval().requires_grad_(False)
        if autocast:
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.data = parameter.data.float()
        with_attention(model.get_base_model(), attention)
        yield said, model


def _adapted(recipe: Recipe, setting: Setting) -> Any:
    """PEFT's model with a random adapter, in float32."""
    if setting.weights == "checkpoint":
        base = real_base(recipe)
    else:
        base = bare(recipe, setting.layers, 0.0)
        with torch.no_grad():
            for parameter in base.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(SHARPNESS)
    adapted = load_peers().with_peft(base, ATTENTION, 4, 8, 0.0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=CHANGE[setting.weights])
    return adapted


def _lorakits(model: Any, prompts: Prompts, wanted: Decode) -> Texts:
    found = decode(model, prompts.ids, prompts.mask, wanted, (prompts.end,))
    return [[*text.ids, prompts.end] if text.ended else text.ids for text in found]


PLUGIN = Generate()
