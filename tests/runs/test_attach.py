"""The counts of what a recipe trains."""

from __future__ import annotations

import pytest

from lorakit.bases.load import load
from lorakit.errors import RecipeError
from lorakit.recipe.load import load_recipe
from lorakit.runs.attach import attach, counts_of


def test_the_total_is_the_base_s_without_the_deltas():
    recipe = load_recipe("quickstart").recipe
    base = load(*recipe.base())
    before = sum(p.numel() for p in base.model.parameters())
    counts = counts_of(attach(recipe, base))
    head = sum(base.model.get_parameter(name).numel() for name in base.newly_initialised)
    assert counts.total == before
    assert (counts.fresh, counts.trainable) == (head, 12_288)
    assert sum(p.numel() for p in base.model.parameters()) == before + 12_288


@pytest.mark.parametrize("key", ["sites", "trainable"])
def test_other_counts_than_expected_are_refused(key):
    recipe = load_recipe("quickstart", [f"expect.{key}=7"]).recipe
    with pytest.raises(RecipeError, match=rf"expect\.{key} is 7"):
        attach(recipe, load(*recipe.base()))
