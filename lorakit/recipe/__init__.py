"""Recipes: from a YAML file to a frozen `Recipe`."""

from lorakit.recipe.schema import Evaluate, Expect, Published, Recipe, Train

__all__ = ["Evaluate", "Expect", "Published", "Recipe", "Train"]
