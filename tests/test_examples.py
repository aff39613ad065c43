"""The example without lorakit computes what lorakit computes: the same batches, the same losses, the same logits."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from lorakit.events import Event, StepTaken
from lorakit.recipe.load import Loaded, load_recipe
from tests.rounding import assert_near, rounding

EXACT, STEPS = 5, 20
"""The two add up in another order, and what that rounds off grows from step to step: 3e-6 after twenty."""

QUICKSTART = 2048
"""Terms on the way through its three layers of 128 and 512 numbers."""

ROOT = Path(__file__).parent.parent
ASSETS = ROOT / "lorakit" / "assets"


class Enough(Exception):
    """Ends a run after the steps that are compared."""


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "lora_from_scratch", ROOT / "examples" / "lora_from_scratch.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def quickstart() -> Loaded:
    return load_recipe("quickstart")


def _losses_of_lorakit(loaded: Loaded, runs: Path) -> list[float]:
    from lorakit.verbs.train import train_recipe

    losses = []

    def observe(event: Event) -> None:
        if isinstance(event, StepTaken):
            losses.append(event.loss)
        if len(losses) == STEPS:
            raise Enough

    with pytest.raises(Enough):
        train_recipe(loaded, runs, observe)
    return losses


def test_the_example_has_the_numbers_of_the_recipe(example, quickstart):
    recipe = quickstart.recipe
    train, method = recipe.train, recipe.method
    assert (*example.TARGETS,) == method.targets
    assert (method.r, method.alpha, recipe.data.max_length) == (
        example.R,
        example.ALPHA,
        example.LENGTH,
    )
    assert (train.epochs, train.global_batch_size) == (example.EPOCHS, example.BATCH)
    assert (train.learning_rate, train.warmup) == (example.RATE, example.WARMUP)
    assert (tuple(example.LABELS), (example.SEED,)) == (recipe.task.labels, recipe.seeds)


def test_the_first_losses_are_those_of_lorakit(example, quickstart, tmp_path):
    from transformers import AutoTokenizer

    wanted = _losses_of_lorakit(quickstart, tmp_path)
    model = example.build(ASSETS)
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "tiny_encoder")
    steps = example.train(model, tokenizer, example.read(ASSETS, "train"))
    found = [loss for _, (_, loss) in zip(range(STEPS), steps, strict=False)]
    assert len(set(wanted)) == STEPS
    assert found[:EXACT] == pytest.approx(wanted[:EXACT], rel=rounding(torch.float32, QUICKSTART))
    assert found == pytest.approx(wanted, abs=1e-3, rel=0)


def test_merging_changes_no_logit(example):
    from transformers import AutoTokenizer

    model = example.build(ASSETS)
    tokenizer, rows = (
        AutoTokenizer.from_pretrained(ASSETS / "tiny_encoder"),
        example.read(ASSETS, "validation")[:16],
    )
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, example.LoRALinear):
                module.B.normal_(std=0.1)
    before = example.logits_of(model, tokenizer, rows)
    example.merge(model)
    assert not any(isinstance(module, example.LoRALinear) for module in model.modules())
    assert_near(example.logits_of(model, tokenizer, rows), before, QUICKSTART)
