"""The recipes of SAMSum and MNLI as text against the paper's GPT-3 settings, typed from the paper
(T12, App. D.4)."""

from __future__ import annotations

import pytest

from lorakit.recipe.load import load_recipe

MAX_LENGTH = {"mnli_causal": 768, "samsum": 2048}
WARMUP_TOKENS = 250_000
MEAN_TOKENS = {"mnli_causal": 55, "samsum": 160}
"""Of an example, at about four characters each."""
SHAPES = {"": (24, 896, 128, 540_672), "qwen2_5_7b/": (28, 3584, 512, 2_523_136)}
"""Layers, width, width of the values, trainable at rank 8."""
CELLS = [(folder, task) for folder in SHAPES for task in MAX_LENGTH]


@pytest.fixture(params=CELLS, ids="".join)
def cell(request):
    folder, task = request.param
    return folder, task, load_recipe(f"{folder}{task}")


def test_settings_are_those_of_the_paper(cell):
    _, task, loaded = cell
    train, method = loaded.recipe.train, loaded.recipe.method
    assert loaded.recipe.task.name == task
    assert loaded.recipe.data.max_length == MAX_LENGTH[task]
    assert (train.epochs, train.global_batch_size, train.weight_decay, train.schedule) == (
        2,
        128,
        0.1,
        "linear",
    )
    assert train.learning_rate == 2e-4
    assert (method.name, method.r, method.targets) == ("lora", 8, ("query", "value"))
    assert loaded.recipe.evaluate.keep == "best"
    assert train.global_batch_size % train.micro_batch_size == 0


def test_the_warm_up_is_the_papers_tokens_in_steps(cell):
    _, task, loaded = cell
    assert loaded.recipe.train.warmup == round(WARMUP_TOKENS / (128 * MEAN_TOKENS[task]))


def test_counts_are_the_computed_ones(cell):
    folder, _, loaded = cell
    layers, width, values, trainable = SHAPES[folder]
    shape, expect = loaded.recipe.model.shape, loaded.recipe.expect
    assert (shape["num_hidden_layers"], shape["hidden_size"]) == (layers, width)
    assert width // shape["num_attention_heads"] * shape["num_key_value_heads"] == values
    assert expect.sites == 2 * layers
    assert expect.trainable == layers * 8 * (width + width + width + values) == trainable


def test_no_score_of_another_base_is_expected(cell):
    _, _, loaded = cell
    assert not loaded.recipe.expect.scores
    assert loaded.recipe.expect.source is None
    assert "another base than the paper's" in loaded.recipe.about


def test_what_is_the_papers_says_so(cell):
    _, _, loaded = cell
    sources = {key: origin.source for key, origin in loaded.origins.items()}
    assert sources["train.learning_rate"] == sources["data.max_length"] == "paper"
    assert sources["method.alpha"] == sources["train.warmup"] == sources["model.name"] == "ours"
