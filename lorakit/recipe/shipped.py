"""Shipped recipes and fragments, and the file that a recipe's name or path means."""

from __future__ import annotations

import os
from pathlib import Path

import lorakit
from lorakit.errors import RecipeError, did_you_mean

STUDIES = "studies"
TABLES = "tables"
"""Folders under recipes/ that hold other files than recipes: studies, and tables of papers."""


def shipped(kind: str) -> Path:
    """The folder `recipes` or `configs`: in an installed package, or at the top of a checkout."""
    package = Path(lorakit.__file__).parent
    installed = package / "shipped" / kind
    return installed if installed.is_dir() else package.parent / kind


def names() -> list[str]:
    """Every shipped recipe, by the name that the command line takes."""
    root = shipped("recipes")
    files = (file.relative_to(root) for file in root.rglob("*.yaml"))
    recipes = (file for file in files if file.parts[0] not in (STUDIES, TABLES))
    return sorted(str(file.with_suffix("")) for file in recipes)


def find(name_or_path: str) -> Path:
    """The file at that path, else the shipped recipe of that name. RecipeError: neither exists."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.is_dir() and (path / "recipe.yaml").is_file():
        return path / "recipe.yaml"
    name = name_or_path.removeprefix("recipes/").removesuffix(".yaml")
    if name in names():
        return shipped("recipes") / f"{name}.yaml"
    raise RecipeError(
        f"there is no recipe file {name_or_path!r} and no shipped recipe {name!r}"
        f"{did_you_mean(name, names())} (`lorakit recipes list` shows all)"
    )


def recipe_name(path: Path) -> str:
    """`roberta_large/glue_mrpc` for a shipped recipe, the run's name for a run folder's recipe.

    Any other file has its name without the suffix.
    """
    root = shipped("recipes").resolve()
    if path.resolve().is_relative_to(root):
        return str(path.resolve().relative_to(root).with_suffix(""))
    if path.name != "recipe.yaml":
        return path.stem
    # without `..`, and without following a link to the folder
    return Path(os.path.abspath(path)).parent.name
