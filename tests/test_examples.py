"""The examples run, and LoRA from scratch has the batches, losses and logits of lorakit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from lorakit.events import Event, StepTaken
from lorakit.recipe.load import LoadedRecipe, load_recipe
from tests.modules import ROOT, load_module
from tests.rounding import assert_near, rounding

EXACT, STEPS = 5, 20
"""The two add in another order, and the rounding grows with the steps: 3e-6 after twenty."""

QUICKSTART = 2048
"""Terms on the way through its three layers of 128 and 512 numbers."""

EXAMPLES = ROOT / "examples"
ASSETS = ROOT / "lorakit" / "assets"


class Enough(Exception):
    """Ends a run after the steps that are compared."""


@pytest.fixture(autouse=True)
def _same_logging() -> Iterator[None]:
    """The examples make transformers quiet; the tests after them must hear it again."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    yield
    logging.set_verbosity(level)
    if bars:
        logging.enable_progress_bar()


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_module("examples/lora_from_scratch.py")


@pytest.fixture(scope="module")
def quickstart() -> LoadedRecipe:
    return load_recipe("quickstart")


def _losses_of_lorakit(loaded: LoadedRecipe, runs: Path) -> list[float]:
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


def test_every_example_is_listed():
    listed = re.findall(r"\((\w+\.py)\)", (EXAMPLES / "README.md").read_text("utf-8"))
    assert sorted(listed) == sorted(path.name for path in EXAMPLES.glob("*.py"))


def test_own_data_trains_and_predicts(capsys):
    load_module("examples/own_data.py").main()
    printed = capsys.readouterr().out
    assert "all checks passed: True" in printed
    assert "'We found the book great.' is positive" in printed


def test_own_method_learns_and_merges(capsys):
    load_module("examples/own_method.py").main()
    printed = capsys.readouterr().out
    losses = [float(text) for text in re.findall(r"loss ([\d.]+)", printed)]
    assert losses[-1] < losses[0]
    difference = re.search(r"no logit differs by more than (\S+)", printed)
    assert difference is not None
    assert float(difference[1]) < 1e-4


def test_own_method_off_is_the_base_and_state_is_checked():
    from lorakit.errors import AdapterError

    module = load_module("examples/own_method.py")
    attachment = module.attached()
    ids = {"input_ids": torch.tensor([[5, 6, 7]])}
    with torch.no_grad():
        base = attachment.model(**ids).logits
        for site in attachment.sites:
            site.module.delta[site.part].gain.fill_(0.5)
        assert not torch.equal(attachment.model(**ids).logits, base)
        with attachment.off():
            assert torch.equal(attachment.model(**ids).logits, base)
    with pytest.raises(AdapterError, match="unknown_name"):
        attachment.load_state({**attachment.state(), "unknown_name": torch.zeros(1)})


def test_own_method_is_detached_and_saved_as_every_method_is(tmp_path):
    import lorakit
    from lorakit.methods import Method

    module = load_module("examples/own_method.py")
    attachment = module.attached()
    names = {name for name, _ in attachment.model.named_parameters()}
    recorded = attachment.method.model_dump(mode="json")
    assert module.Gain.model_validate(recorded) == attachment.method
    assert isinstance(attachment.method, Method)
    lorakit.save_adapter(attachment, tmp_path / "gain")
    attachment.detach()
    left = {name for name, _ in attachment.model.named_parameters()}
    assert left == {name for name in names if ".delta." not in name} < names


def test_own_task_reads_and_scores(tmp_path, capsys):
    from lorakit.errors import DataError
    from lorakit.tasks import Data

    module = load_module("examples/own_task.py")
    module.main()
    assert "'within_one': 100.0" in capsys.readouterr().out
    path = tmp_path / "reviews.txt"
    path.write_text("1\tbad\n6\tgood\n", encoding="utf-8")
    task = module.Stars(train=str(path), validation=str(path))
    assert [e.target for e in task.read("train", Data(limit={"train": 1}))] == [0]
    with pytest.raises(DataError, match=r"reviews\.txt:2: '6'"):
        task.read("train", Data())
    with pytest.raises(DataError):
        task.score(["1"], [])
