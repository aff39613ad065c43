"""The recipes on SmolLM2: one setting for all tasks, and the decoding of the paper."""

from __future__ import annotations

import pytest

from lorakit.recipe.load import load_recipe

TASKS = ("e2e", "samsum", "webnlg", "wikisql")
LAYERS, WIDTH, VALUES = 30, 576, 192
"""Of SmolLM2-135M: layers, width, width of the values."""


@pytest.mark.parametrize("task", TASKS)
def test_counts_are_the_computed_ones_and_nothing_is_published(task):
    recipe = load_recipe(f"smollm2/{task}").recipe
    assert recipe.task.name == task
    assert recipe.expect.sites == 2 * LAYERS
    r = recipe.method.model_dump()["r"]
    assert recipe.expect.trainable == LAYERS * r * ((WIDTH + WIDTH) + (WIDTH + VALUES))
    assert not recipe.expect.scores


@pytest.mark.parametrize("task", TASKS)
def test_training_differs_in_the_examples_alone(task):
    found, e2e = load_recipe(f"smollm2/{task}").recipe, load_recipe("smollm2/e2e").recipe
    changes = {"micro_batch_size": e2e.train.micro_batch_size}
    assert found.train.model_copy(update=changes) == e2e.train
    assert found.method == e2e.method


@pytest.mark.parametrize(("task", "penalty"), [("e2e", 0.9), ("webnlg", 0.8)])
def test_decoding_is_the_papers_with_fewer_beams(task, penalty):
    """Table 11 of Hu et al."""
    decode = load_recipe(f"smollm2/{task}").recipe.decode
    assert (decode.length_penalty, decode.no_repeat_ngram) == (penalty, 4)


@pytest.mark.parametrize("task", TASKS)
def test_every_value_says_where_it_is_from(task):
    sources = {origin.source for origin in load_recipe(f"smollm2/{task}").origins.values()}
    assert sources == {"paper", "ours"} if task != "webnlg" else {"paper", "ours", "script"}
