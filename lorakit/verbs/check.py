"""`lorakit check`: everything but train. Works on shapes alone where the weights are not at hand."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lorakit.bases.base import Base
from lorakit.bases.files import weight_files
from lorakit.bases.finite import refuse_files_not_finite
from lorakit.bases.outline import outline
from lorakit.bases.positions import refuse_shifted
from lorakit.bases.tokenizer import load_tokenizer
from lorakit.batches import IGNORE, Encoded, encode
from lorakit.errors import DataUnavailable, ModelError
from lorakit.evaluation.answers import read_splits, scored_splits
from lorakit.events import HeadView
from lorakit.methods import Attachment
from lorakit.models import Model
from lorakit.nn.linear import features
from lorakit.nn.settings import setting
from lorakit.recipe.schema import Recipe
from lorakit.runs.objects import Examiner, attach, counts_of
from lorakit.runs.result import Counts
from lorakit.tasks import Head
from lorakit.training.plan import Shares, epoch_batches, share, steps_per_epoch
from lorakit.training.refuse import refuse_no_rate
from lorakit.verbs.heads import head_view, warn_other_order
from lorakit.verbs.rehearse import refuse_looking_ahead

ACTIVATIONS = 11
"""Numbers saved for the backward pass per token, layer and hidden unit: two norm inputs, q, k, v, attention out, the
MLP's four, and LoRA's input (measured 10.3 to 11.3 on frozen encoders without dropout)."""


@dataclass
class Checked:
    """What a run of the recipe would be. `missing`: what could not be looked at, and why."""

    attachment: Attachment
    counts: Counts
    rows: dict[str, int] = field(default_factory=dict)
    steps: int | None = None
    warmup_steps: int | None = None
    shares: Shares | None = None
    sample: list[tuple[str, bool]] = field(default_factory=list)
    """The first example of the first batch: (token text, is it trained or read by the head)."""
    cut: int = 0
    memory_mib: dict[str, float] = field(default_factory=dict)
    adapter_mib: float = 0.0
    missing: list[str] = field(default_factory=list)
    head: HeadView | None = None


def check(recipe: Recipe, processes: int = 1) -> Checked:
    """Sites, counts, steps, one batch, memory. Raises what training would raise before its first step."""
    shares = share(recipe.train.global_batch_size, recipe.train.micro_batch_size, processes)
    base = outline(recipe.model, recipe.task.head.value, recipe.task.labels)
    if recipe.task.head is Head.CAUSAL:
        refuse_looking_ahead(base)
    attachment = attach(recipe, base)
    checked = Checked(attachment, counts_of(attachment), shares=shares)
    checked.head = head_view(recipe, base, attachment)
    warn_other_order(checked.head)
    checked.adapter_mib = (checked.counts.trainable + checked.counts.fresh) * 4 / 2**20
    _look_at_weights(recipe.model, checked)
    encoded = _look_at_data(recipe, checked, base.model)
    length = max((e.length for e in encoded), default=recipe.data.max_length)
    stored = quantizable(base) if recipe.model.quantize else 0
    checked.memory_mib = memory(recipe, base.config, checked.counts, shares.micro * length, stored)
    return checked


LARGEST_READ = 4 * 2**30
"""Bytes of weights that are read to find numbers that are not finite: some seconds."""


def _look_at_weights(spec: Model, checked: Checked) -> None:
    """ModelError: a number is not finite. Shapes and names were compared with the files' headers before."""
    files = weight_files(spec, local=True)
    if not files:
        checked.missing.append(
            f"the weights of {spec.name}, which are not on this machine as safetensors"
        )
    elif sum(file.stat().st_size for file in files) > LARGEST_READ:
        checked.missing.append(
            f"the numbers of {spec.name}'s weights, which are more than 4 GiB; training looks at them"
        )
    else:
        refuse_files_not_finite(spec)


def _look_at_data(recipe: Recipe, checked: Checked, shapes: Any) -> list[Encoded]:
    try:
        splits = read_splits(recipe.task, recipe.data, scored_splits(recipe.task, train=True))
    except DataUnavailable as error:
        if recipe.data.path is not None:
            raise
        checked.missing.append(str(error))
        return []
    checked.rows = {split: len(rows) for split, rows in splits.items()}
    per_epoch = steps_per_epoch(
        checked.rows[recipe.task.train_split], recipe.train.global_batch_size
    )
    checked.steps = min(
        recipe.train.max_steps or 10**12, max(1, round(recipe.train.epochs * per_epoch))
    )
    refuse_no_rate(recipe.train, checked.steps)
    warmup = recipe.train.warmup
    checked.warmup_steps = int(warmup) if warmup >= 1 else -int(-warmup * checked.steps // 1)
    try:
        tokenizer = load_tokenizer(recipe.model)
    except ModelError as error:
        checked.missing.append(str(error))
        return []
    refuse_shifted(shapes, tokenizer, recipe.model.name, weight_files(recipe.model, local=True))
    scored = {split: splits[split] for split in scored_splits(recipe.task)}
    Examiner(recipe, tokenizer, shapes.config, scored)  # what fits not
    encoded = encode(splits[recipe.task.train_split], tokenizer, recipe.task.head, recipe.data)
    order = epoch_batches(
        [e.length for e in encoded], recipe.train.global_batch_size, recipe.seeds[0], 0, True
    )
    checked.sample = _tokens(encoded[order[0][0]], tokenizer, recipe.task.head)
    checked.cut = sum(e.length >= recipe.data.max_length for e in encoded)
    return encoded


def _tokens(item: Encoded, tokenizer: Any, head: Head) -> list[tuple[str, bool]]:
    ids = item.inputs["input_ids"]
    trained = (
        [label != IGNORE for label in item.trains] if head is Head.CAUSAL else [False] * len(ids)
    )
    return [(tokenizer.decode([token]), mark) for token, mark in zip(ids, trained, strict=True)]


BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.0, "nf4": 0.516}
"""Per number; NF4 with double quantization has 4.127 bits (QLoRA, section 3)."""


def quantizable(base: Base) -> int:
    """Numbers in the linear layers that `model.quantize` stores in fewer bits: all but the head."""
    head = base.model.get_output_embeddings()  # type: ignore[operator]
    linear = {
        name: m
        for name, m in base.model.named_modules()
        if isinstance(m, nn.Linear) and m is not head
    }
    kept = base.newly_initialised | base.head
    return sum(math.prod(features(m)) for name, m in linear.items() if f"{name}.weight" not in kept)


def memory(
    recipe: Recipe, config: Any, counts: Counts, tokens: int, stored: int = 0
) -> dict[str, float]:
    """MiB, from counts: what is frozen in its dtype, what trains with gradient and Adam's two moments in fp32, and the
    activations of one micro batch of `tokens` tokens. stored: numbers that are quantized. An estimate: attention's
    own buffers come on top."""
    dtype = BYTES[recipe.model.dtype]
    size = 4 if recipe.train.precision in ("fp32", "auto") else 2
    trained = counts.trainable + counts.fresh
    inside = (
        counts.trainable if counts.sites == 0 else 0
    )  # a method without sites trains some of the base's own
    frozen = counts.total - counts.fresh - inside
    layers = setting(config, "num_hidden_layers", 12)
    hidden = setting(config, "hidden_size", 0)
    saved = (
        hidden * tokens * (layers if recipe.train.gradient_checkpointing else layers * ACTIVATIONS)
    )
    logits = tokens * setting(config, "vocab_size", 0) * 3 if recipe.task.head is Head.CAUSAL else 0
    parts = {
        "weights": (frozen - stored) * dtype
        + stored * BYTES.get(recipe.model.quantize or "", dtype),
        "trained, with gradient and optimizer": trained * 16,
        "activations": saved * size + logits * 4,
    }
    return {name: number / 2**20 for name, number in parts.items()} | {
        "together": sum(parts.values()) / 2**20
    }
