"""Recipes: from a YAML file to a frozen `Recipe`."""

from lorakit.recipe.evaluate import Evaluate
from lorakit.recipe.expect import Expect, Published
from lorakit.recipe.schema import Recipe
from lorakit.recipe.train import Train

__all__ = ["Evaluate", "Expect", "Published", "Recipe", "Train"]
