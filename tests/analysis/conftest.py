"""Runs of the tiny models that analyses read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lorakit.recipe.load import load_recipe
from lorakit.verbs.train import train_recipe
from tests.conftest import draw_frames

SMALL = ["data.limit={train: 64, validation: 32}", "train.epochs=1", "train.global_batch_size=16"]


def _train(folder: Path, *overrides: str, recipe: str = "quickstart") -> Path:
    loaded = load_recipe(recipe, [*SMALL, *overrides])
    with pytest.MonkeyPatch.context() as patch:
        draw_frames(patch)
        return train_recipe(loaded, folder, lambda event: None)[0]


@pytest.fixture(scope="session")
def runs(tmp_path_factory, trained) -> dict[str, Path]:
    """lora: two seeds with r=8; the others have one seed."""
    folder = tmp_path_factory.mktemp("others")
    targets = "[{match: query, r: 2}, {match: mlp_in, r: 4}, value]"
    return {
        "lora": Path(shutil.copytree(trained, folder / trained.name)),
        "narrow": _train(folder, "method.r=2", "method.alpha=4"),
        "mixed": _train(folder, f"method.targets={targets}"),
        "full": _train(folder, "method={name: full}", "train.learning_rate=5e-5"),
        "hira": _train(folder, "method={name: hira, r: 4}", "train.max_steps=4"),
        "bitfit": _train(folder, "method={name: bitfit}"),
        "gpt2": _train(folder, "train.max_steps=4", recipe="quickstart_generate"),
    }


@pytest.fixture(autouse=True)
def pictures() -> None:
    """Drawn: they are what is tested."""
