"""`lorakit bench memory`: memory and saved weights of LoRA, full fine-tuning and PEFT.

The paper (section 4.2) reports 3 x less memory and 10,000 x smaller checkpoints for GPT-3 175B. The
second table counts the same sizes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict

from lorakit.bench._base import Bench, Measured, Setting
from lorakit.errors import InputError
from lorakit.methods.reparam.lora import LoRA
from lorakit.recipe.schema import Recipe
from lorakit.report.table import NOTHING, Table

PARTS = ("weights", "gradients", "optimizer", "activations")
LAYERS = 96
WIDTH = 12288
WORDS = 50257
POSITIONS = 2048
"""GPT-3 175B (Brown et al. 2020, table 2.1)."""


class Memory(Bench):
    """Bytes of one training step, by tensor and at the measured peak, and of the saved weights."""

    name = "memory"
    peers = ("full", "peft")

    def run(self, recipe: Recipe, setting: Setting) -> Measured:
        if not isinstance(recipe.method, LoRA):
            raise InputError(
                f"bench memory measures lora, and the recipe's method is {recipe.method.name}"
            )
        if setting.recipe is None:
            raise InputError("bench memory starts processes, and needs the recipe's name")
        found = {way: _process(way, setting) for way in ("lorakit", *setting.against)}
        counted = {
            f"{way}: {part}": count for way, parts in found.items() for part, count in parts.items()
        }
        blocks = found["lorakit"]["blocks"] / 1e6
        notes = []
        if blocks:
            notes.append(
                f"lorakit takes {blocks:,.1f} MB more for weights in blocks, if that is at most an "
                "eighth of the free memory"
            )
        return Measured(
            [], bytes=counted, tables=[_table(found, setting), gpt3_table()], notes=notes
        )


def _process(way: str, setting: Setting) -> dict[str, int]:
    fields = {
        k: v
        for k, v in asdict(setting).items()
        if k in ("layers", "batch", "length", "dropout", "device")
    }
    words = [way, json.dumps({**fields, "precision": setting.precision}), *(setting.recipe or ())]
    done = subprocess.run(
        [sys.executable, "-m", "lorakit.bench._memory", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
    )
    if done.returncode:
        raise InputError(
            f"bench memory: {way} ended with {done.returncode}: {done.stderr.strip()[-400:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def _table(found: Mapping[str, Mapping[str, int]], setting: Setting) -> Table:
    rows = []
    for way, parts in found.items():
        sizes = [f"{size / 1e6:,.2f}" for size in _sizes(parts)]
        rows.append((way, f"{parts['trained']:,}", *sizes))
    ours = found["lorakit"]
    for way in setting.against:
        theirs = found[way]
        pairs = zip(_sizes(theirs), _sizes(ours), strict=True)
        trained = _times(theirs["trained"], ours["trained"])
        rows.append((f"{way} / lorakit", trained, *(_times(of, over) for of, over in pairs)))
    what = "resident, less what imports took"
    if setting.device == "cuda":
        what = "max_memory_allocated"
    shape = f"batch {setting.batch} of {setting.length} tokens, {setting.precision}"
    header = ("MB", "trained", *PARTS, "sum", "measured peak", "saved weights")
    return Table(header, tuple(rows), f"One training step with AdamW, {shape}; peak: {what}")


def _sizes(parts: Mapping[str, int]) -> list[int]:
    """Bytes in the order of the table's columns."""
    kept = [parts[part] for part in PARTS]
    return [*kept, sum(kept), parts["peak"], parts["file"]]


def _times(of: float, over: float) -> str:
    return f"{of / over:,.2f} x" if over else NOTHING


def gpt3_parameters() -> int:
    """Parameters of a GPT-2 model with GPT-3's sizes.

    12 d^2 + 13 d in each layer, the embeddings, and the last norm.
    """
    return LAYERS * (12 * WIDTH**2 + 13 * WIDTH) + (WORDS + POSITIONS) * WIDTH + 2 * WIDTH


def lora_parameters(r: int = 4, targets: int = 2) -> int:
    """Parameters of LoRA on square weights in every layer of GPT-3: 2 L d r for each target.

    The formula is that of section 5.1.
    """
    return 2 * LAYERS * targets * WIDTH * r


def gpt3_table() -> Table:
    """The paper's numbers and the counts behind them; GB of 10^9 bytes, without activations."""
    n, lora = gpt3_parameters(), lora_parameters()
    weights, adapter = 2 * n, 2 * lora
    training = weights + 16 * lora
    rows = (
        ("parameters", "96 layers of width 12,288", "175 B", f"{n / 1e9:.1f} B"),
        (
            "LoRA's parameters",
            "r = 4 on query and value: 96 x 2 x 2 x 12,288 x 4",
            NOTHING,
            f"{lora:,}",
        ),
        ("checkpoint, full", "2 bytes each", "350 GB", _gb(weights)),
        (
            "checkpoint, LoRA",
            "2 bytes each",
            "35 MB",
            f"{adapter / 1e6:.1f} MB = {adapter / 2**20:.1f} MiB",
        ),
        (
            "checkpoints, full / LoRA",
            "10,000 is that of the printed sizes",
            "10,000 x",
            f"{weights / adapter:,.0f} x",
        ),
        ("100 tasks, full", "", "35 TB", f"{100 * weights / 1e12:.1f} TB"),
        ("100 tasks, LoRA", "one base", "354 GB", _gb(weights + 100 * adapter)),
        (
            "training, full",
            "6 bytes: fp16 weights and two fp16 moments",
            "1.2 TB",
            f"{6 * n / 1e12:.2f} TB",
        ),
        ("", "8 bytes: and fp16 gradients", "", f"{8 * n / 1e12:.2f} TB"),
        (
            "",
            "16 bytes: fp16 weights, gradients; fp32 master weights, moments",
            "",
            f"{16 * n / 1e12:.2f} TB",
        ),
        (
            "training, LoRA",
            "fp16 weights; 16 bytes for each number of LoRA",
            "350 GB",
            _gb(training),
        ),
        (
            "training, full / LoRA",
            "1.2 TB is 6.9 bytes for each parameter: not one of the three",
            "3 x",
            " or ".join(f"{size * n / training:.1f}" for size in (6, 8, 16)) + " x",
        ),
    )
    return Table(
        ("GPT-3 175B", "how", "the paper", "by count"), rows, "Hu et al. 2021, section 4.2", names=2
    )


def _gb(count: float) -> str:
    return f"{count / 1e9:,.1f} GB"


PLUGIN = Memory()
