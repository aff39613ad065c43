"""`lorakit check`: everything before the first training step, without weights if there are none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lorakit.bases.base import Base
from lorakit.bases.files import weight_files
from lorakit.bases.finite import refuse_files_not_finite
from lorakit.bases.outline import outline
from lorakit.bases.positions import refuse_shifted
from lorakit.bases.tokenizer import load_tokenizer
from lorakit.batches import IGNORE, Encoded, TokenRows, encode
from lorakit.batches.pieces import marked_pieces
from lorakit.errors import DataUnavailable, ModelError
from lorakit.evaluation.answers import read_splits, scored_splits
from lorakit.methods import Attachment
from lorakit.models import Model
from lorakit.nn.linear import features
from lorakit.nn.settings import setting
from lorakit.optimizers import state_bytes
from lorakit.recipe.schema import Recipe
from lorakit.runs.attach import attach, counts_of
from lorakit.runs.examiner import Examiner, TextReader
from lorakit.runs.result import Counts
from lorakit.tasks import Example, Head
from lorakit.training.plan import Shares, epoch_batches, share, steps_per_epoch
from lorakit.training.refuse import refuse_no_rate
from lorakit.verbs.heads import HeadView, head_view, warn_other_order
from lorakit.verbs.label_rows import LabelRow, label_rows
from lorakit.verbs.rehearse import refuse_looking_ahead

MIB = 2**20
READ_LIMIT_BYTES = 4 * 2**30
"""Size of the weights up to which every number is checked to be finite; it takes some seconds."""
BYTES_PER_NUMBER = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.0, "nf4": 0.516}
"""NF4 with double quantization takes 4.127 bits (QLoRA, section 3)."""
ACTIVATIONS = 11
"""Numbers saved for the backward pass per token, layer and hidden unit: two norm inputs, q, k, v,
attention output, the MLP's four, and LoRA's input (10.3 to 11.3 were measured on frozen encoders
without dropout)."""
ACTIVATIONS_RECOMPUTED = 1
"""The same with gradient checkpointing: the input of the layer."""
LOGITS = 3
"""Numbers held per logit of a causal model: itself, its softmax and its gradient."""
DEFAULT_LAYERS = 12
"""Assumed where the configuration does not give a number of layers."""
UNLIMITED_STEPS = 10**12


@dataclass
class Checked:
    """What training with the recipe would involve."""

    attachment: Attachment
    counts: Counts
    rows: dict[str, int] = field(default_factory=dict)
    """Split -> number of examples."""
    steps: int | None = None
    warmup_steps: int | None = None
    shares: Shares | None = None
    sample: list[tuple[str, bool]] = field(default_factory=list)
    """First example of the first batch in pieces of a token or more: the text of each, and whether
    the loss is computed on it."""
    cut: int = 0
    """Number of training examples that reach data.max_length."""
    memory_mib: dict[str, float] = field(default_factory=dict)
    adapter_mib: float = 0.0
    missing: list[str] = field(default_factory=list)
    """What could not be checked, because it is not on this machine or too large."""
    head: HeadView | None = None
    labels: list[LabelRow] = field(default_factory=list)


def check(recipe: Recipe, processes: int = 1) -> Checked:
    """Sites, counts, steps, a batch and memory. Raises what training would raise at its start."""
    shares = share(recipe.train.global_batch_size, recipe.train.micro_batch_size, processes)
    base = outline(*recipe.base())
    if recipe.task.head is Head.CAUSAL:
        refuse_looking_ahead(base)
    attachment = attach(recipe, base)
    checked = Checked(attachment, counts_of(attachment), shares=shares)
    checked.head = head_view(recipe, base, attachment)
    warn_other_order(checked.head)
    saved = checked.counts.trainable + checked.counts.fresh
    checked.adapter_mib = saved * BYTES_PER_NUMBER["fp32"] / MIB
    _check_weights(recipe.model, checked)
    encoded = _check_data(recipe, checked, base)
    length = recipe.data.max_length if encoded is None else int(encoded.lengths.max())
    stored = quantizable(base) if recipe.model.quantize else 0
    checked.memory_mib = memory(recipe, base.config, attachment, shares.micro * length, stored)
    return checked


def _check_weights(spec: Model, checked: Checked) -> None:
    """ModelError: a number is not finite. `outline` has compared names and shapes already."""
    files = weight_files(spec, local=True)
    if not files:
        checked.missing.append(
            f"the weights of {spec.name}, which are not on this machine as safetensors"
        )
    elif sum(file.stat().st_size for file in files) > READ_LIMIT_BYTES:
        checked.missing.append(
            f"whether the weights of {spec.name} are finite, because they are larger than "
            f"{READ_LIMIT_BYTES // 2**30} GiB; training checks it"
        )
    else:
        refuse_files_not_finite(spec)


def _check_data(recipe: Recipe, checked: Checked, base: Base) -> TokenRows | None:
    """The encoded training examples; None where the data or the tokenizer is not available."""
    try:
        splits = read_splits(recipe.task, recipe.data, scored_splits(recipe.task, train=True))
    except DataUnavailable as error:
        if recipe.data.path is not None:
            raise
        checked.missing.append(str(error))
        return None
    drawn = recipe.data.drawn(splits[recipe.task.train_split], recipe.seeds[0])
    splits = {**splits, recipe.task.train_split: drawn}
    checked.rows = {split: len(rows) for split, rows in splits.items()}
    checked.labels = label_rows(recipe, splits)
    _plan_steps(recipe, checked, checked.rows[recipe.task.train_split])
    try:
        tokenizer = load_tokenizer(recipe.model)
    except ModelError as error:
        checked.missing.append(str(error))
        return None
    files = weight_files(recipe.model, local=True)
    refuse_shifted(base.model, tokenizer, recipe.model.name, files)
    return _check_examples(recipe, checked, splits, TextReader(tokenizer, base.config))


def _plan_steps(recipe: Recipe, checked: Checked, rows: int) -> None:
    train = recipe.train
    per_epoch = steps_per_epoch(rows, train.global_batch_size)
    planned = max(1, round(train.epochs * per_epoch))
    checked.steps = min(train.max_steps or UNLIMITED_STEPS, planned)
    refuse_no_rate(train, checked.steps)
    if train.warmup >= 1:
        checked.warmup_steps = int(train.warmup)
    else:
        checked.warmup_steps = math.ceil(train.warmup * checked.steps)


def _check_examples(
    recipe: Recipe, checked: Checked, splits: Mapping[str, Sequence[Example]], reader: TextReader
) -> TokenRows:
    task = recipe.task
    # raises for examples that do not fit the model
    asked = Examiner(recipe, reader, {split: splits[split] for split in scored_splits(task)})
    encoded = encode(splits[task.train_split], reader.tokenizer, task.head, recipe.data)
    for split, items in {task.train_split: encoded, **asked.encoded}.items():
        # windows of longer examples are trained, and are not rows
        checked.rows[split] = len(set(items.owners.tolist()))
    _plan_steps(recipe, checked, len(encoded))
    lengths = encoded.lengths.tolist()
    order = epoch_batches(lengths, recipe.train.global_batch_size, recipe.seeds[0], 0, True)
    checked.sample = _tokens(encoded[order[0][0]], reader.tokenizer, task.head)
    checked.cut = sum(length >= recipe.data.max_length for length in lengths)
    return encoded


def _tokens(item: Encoded, tokenizer: Any, head: Head) -> list[tuple[str, bool]]:
    ids = item.inputs["input_ids"]
    trained = [False] * len(ids)
    if head is Head.CAUSAL:
        trained = [label != IGNORE for label in item.trains]
    elif head is Head.TOKENS:
        trained = [place in item.places for place in range(len(ids))]
    elif head is Head.SPANS and isinstance(item.target, tuple):
        first, last = item.target
        trained = [first <= place <= last for place in range(len(ids))]
    return marked_pieces(tokenizer, ids, trained)


def quantizable(base: Base) -> int:
    """Number of weights in the layers that `model.quantize` stores in fewer bits.

    They are all linear layers but the head.
    """
    output: Any = base.model
    head = output.get_output_embeddings()
    kept = base.newly_initialised | base.head
    total = 0
    for name, module in base.model.named_modules():
        if not isinstance(module, nn.Linear) or module is head or f"{name}.weight" in kept:
            continue
        total += math.prod(features(module))
    return total


def memory(
    recipe: Recipe, config: Any, attachment: Attachment, tokens: int, stored: int = 0
) -> dict[str, float]:
    """An estimate of the memory of a training step, in MiB, from counts.

    The frozen weights are in their dtype, the trained ones, their gradients and the moving average
    of train.ema in fp32. The activations are those of one micro batch of `tokens` tokens;
    attention's own buffers come on top. stored: number of weights that are quantized.
    """
    counts = counts_of(attachment)
    dtype = BYTES_PER_NUMBER[recipe.model.dtype]
    trained = counts.trainable + counts.fresh
    # a method without sites trains some of the base's own weights
    inside = counts.trainable if counts.sites == 0 else 0
    frozen = counts.total - counts.fresh - inside
    quantized = BYTES_PER_NUMBER.get(recipe.model.quantize or "", dtype)
    trained_bytes = trained * BYTES_PER_NUMBER["fp32"]
    parts = {
        "frozen weights": (frozen - stored) * dtype + stored * quantized,
        "trained weights": trained_bytes,
        "their gradients": trained_bytes,
        "optimizer state": state_bytes(recipe.train.optimizer, attachment),
    }
    if recipe.train.ema is not None:
        parts["moving average"] = trained_bytes
    parts["activations"] = _activation_bytes(recipe, config, tokens)
    parts["together"] = sum(parts.values())
    return {name: number / MIB for name, number in parts.items()}


def _activation_bytes(recipe: Recipe, config: Any, tokens: int) -> int:
    size = 4 if recipe.train.precision in ("fp32", "auto") else 2
    layers = setting(config, "num_hidden_layers", DEFAULT_LAYERS)
    per_layer = ACTIVATIONS_RECOMPUTED if recipe.train.gradient_checkpointing else ACTIVATIONS
    saved = setting(config, "hidden_size", 0) * tokens * layers * per_layer
    logits = 0
    if recipe.task.head is Head.CAUSAL:
        logits = tokens * setting(config, "vocab_size", 0) * LOGITS
    return saved * size + logits * 4
