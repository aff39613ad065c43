"""Loading of recipes: YAML, `extends` and overrides to a frozen `Recipe`. Torch is not imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorakit.notes import Note
from lorakit.recipe.extend import read_extended
from lorakit.recipe.naming import checked_name
from lorakit.recipe.origins import Origin, origins_of
from lorakit.recipe.override import apply_overrides
from lorakit.recipe.schema import Recipe
from lorakit.recipe.shipped import find, recipe_name
from lorakit.recipe.source import Mark, Marks
from lorakit.recipe.validate import validate


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe, and what is known about its file."""

    recipe: Recipe
    name: str
    path: Path
    origins: dict[str, Origin]
    """Dotted key -> origin, for every value that was given."""
    notes: tuple[Note, ...] = ()


def load_recipe(
    name_or_path: str, overrides: Sequence[str] = (), given: Sequence[Mark] = ()
) -> LoadedRecipe:
    """The recipe of that file or shipped name, with `key=value` and `~key` applied.

    given: where each override was given; without it, on the command line.
    RecipeError lists every problem: file, line, value, nearest valid name.
    """
    return build(find(name_or_path), overrides, given)


def build(path: Path, overrides: Sequence[str] = (), given: Sequence[Mark] = ()) -> LoadedRecipe:
    """As `load_recipe`, for a file."""
    return assemble(path, *read_extended(path), overrides, given)


def assemble(
    path: Path,
    data: dict[str, Any],
    marks: Marks,
    overrides: Sequence[str] = (),
    given: Sequence[Mark] = (),
) -> LoadedRecipe:
    """As `build`, for a file that has been read; `data` and `marks` are changed in place."""
    name = checked_name(recipe_name(path), path)
    notes = apply_overrides(data, marks, overrides, given)
    recipe = validate(data, marks)
    return LoadedRecipe(recipe, name, path, origins_of(data, marks), tuple(notes))


def compose(data: dict[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from plain data instead of a file."""
    marks: Marks = {}
    apply_overrides(data, marks, overrides)
    return validate(data, marks)
