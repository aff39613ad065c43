"""`train_recipe` from Python: several runs in one process."""

from __future__ import annotations

import pytest
import torch

from lorakit.errors import RecipeError
from lorakit.recipe.load import load_recipe
from lorakit.run.folder import read_lines
from lorakit.run.train import train_recipe

TINY = ["data.limit={train: 64, validation: 16}", "train.global_batch_size=16", "train.max_steps=2"]


@pytest.fixture
def losses(tmp_path):
    """`losses(*overrides)`: of the two steps of a quickstart, in a folder of its own."""
    asked = []

    def losses(*overrides: str) -> list[float]:
        asked.append(overrides)
        run, _ = train_recipe(
            load_recipe("quickstart", [*TINY, *overrides]), tmp_path / str(len(asked)), lambda _: None
        )
        return [event["loss"] for event in read_lines(run / "seed0" / "metrics.jsonl") if event["event"] == "step"]

    return losses


def test_every_run_of_a_process_has_its_own_precision(losses):
    """accelerate keeps that of the first."""
    first, half, again = (losses(f"train.precision={name}") for name in ("fp32", "bf16", "fp32"))
    assert first == again
    assert half != first
    assert half == pytest.approx(first, rel=0.05)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has fp16")
def test_a_precision_that_the_machine_has_not(losses):
    """accelerate would train in fp32 without a word."""
    with pytest.raises(RecipeError, match=r"train\.precision fp16 is not to be had here"):
        losses("train.precision=fp16")
