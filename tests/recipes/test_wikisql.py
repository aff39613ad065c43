"""The recipes on WikiSQL: the paper's settings for GPT-3 (its Table 12 and Appendix D.4) on bases
that are available."""

from __future__ import annotations

import pytest

from lorakit.recipe.load import load_recipe

SHAPES = {"wikisql": (24, 896, 2 * 64), "qwen2_5_7b/wikisql": (28, 3584, 4 * 128)}
"""Layers, width, width of the values."""


@pytest.fixture(params=sorted(SHAPES))
def name(request):
    return request.param


def test_counts_are_the_computed_ones(name):
    layers, width, values = SHAPES[name]
    recipe = load_recipe(name).recipe
    assert recipe.expect.sites == 2 * layers
    assert recipe.expect.trainable == layers * recipe.method.model_dump()["r"] * (
        (width + width) + (width + values)
    )
    assert not recipe.expect.scores, "no published number is of this base"
    assert recipe.task.name == "wikisql"


def test_what_is_the_papers_says_so(name):
    loaded = load_recipe(name)
    sources = {key: origin.source for key, origin in loaded.origins.items()}
    assert sources["train.epochs"] == "paper"


@pytest.mark.parametrize("name", ["wikisql", "qwen2_5_7b/wikisql"])
def test_settings_are_those_of_table_12(name):
    recipe = load_recipe(name).recipe
    train, method = recipe.train, recipe.method.model_dump()
    assert (train.epochs, train.global_batch_size, train.learning_rate, train.weight_decay) == (
        2,
        128,
        2e-4,
        0.1,
    )
    assert (train.schedule, recipe.data.max_length, method["r"]) == ("linear", 384, 8)
    assert method["targets"] == ("query", "value")
