"""Measures a training step of every method of a study over one of LoRA, at the study's settings.

Writes results/family/NAME_costs.json: ratios of processor time over the cell `lora`, and the bytes
that a step keeps (for the backward pass, gradients and two moments of AdamW).

    python scripts/family_costs.py family_minilm model.name=FOLDER data.path=GLUE

Cells that differ from another in their initialisation only are left out: their step is the same.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import torch
from torch import nn

from lorakit.bases.base import DTYPES
from lorakit.bench._base import Setting
from lorakit.bench._machine import machine
from lorakit.bench._models import as_trained, bare
from lorakit.bench._rounds import measure, saved_bytes
from lorakit.bench.methods import attached, step_of
from lorakit.bench.step import random_batch
from lorakit.methods import Attachment, Method
from lorakit.runs.precision import resolve_precision
from lorakit.studies.plan import Plan, load_study
from lorakit.training.loss import loss_sum

FOLDER = Path(__file__).resolve().parent.parent / "results" / "family"
BASELINE = "lora"
ROUNDS = 7
LENGTH = 32
"""Tokens of each text: about those of a batch of SST-2 by length."""
MOMENTS = 2
"""Numbers that AdamW keeps of each trained number."""


def methods_of(plan: Plan) -> dict[str, Method]:
    """Cell -> its method."""
    found = {str(cell.point.get("cell")): cell.loaded.recipe.method for cell in plan.cells}
    return {name: method for name, method in found.items() if not name.startswith("init ")}


def kept_bytes(attachment: Attachment, kept: int) -> int:
    """kept: what the forward pass keeps for the backward pass."""
    trained: list[nn.Parameter] = [p for p in attachment.model.parameters() if p.requires_grad]
    return kept + (1 + MOMENTS) * sum(p.numel() * p.element_size() for p in trained)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", help="name or file of a study with a cell `lora`")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    given = parser.parse_args()
    plan = load_study(given.study, given.overrides)
    chosen = methods_of(plan)
    if BASELINE not in chosen:
        parser.error(f"the study {plan.name} has no cell {BASELINE!r}")
    recipe = resolve_precision(plan.cells[0].loaded.recipe)
    dtype = recipe.model.dtype
    setting = Setting(
        against=(), rounds=ROUNDS, batch=recipe.train.global_batch_size, length=LENGTH
    )
    torch.manual_seed(0)
    base = bare(recipe, None, 0.0).to(DTYPES[dtype])
    found = {cell: attached(base, method) for cell, method in chosen.items()}
    batch = random_batch(recipe, found[BASELINE].model, setting)
    head = recipe.task.head
    steps = {cell: step_of(one, batch, head) for cell, one in found.items()}
    with as_trained({cell: one.model for cell, one in found.items()}):
        rounds = measure(steps, setting.rounds)
    bytes_ = {
        cell: kept_bytes(one, saved_bytes(partial(loss_sum, one.model, batch, head), one.model))
        for cell, one in found.items()
    }
    result = {
        "study": plan.name,
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "dtype": dtype,
        "batch": setting.batch,
        "length": setting.length,
        "ratios": [rounds.ratio(cell, BASELINE).plain() for cell in found],
        "bytes": bytes_,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{plan.name.removeprefix('family_')}_costs.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
