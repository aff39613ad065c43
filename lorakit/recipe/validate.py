"""Validation of a recipe: plain values to a frozen `Recipe`, or every problem at once."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from lorakit.errors import RecipeError
from lorakit.methods import methods
from lorakit.models import Model
from lorakit.recipe.problems import Sections, describe, listing, mark_of
from lorakit.recipe.schema import Decode, Evaluate, Expect, Recipe, Train
from lorakit.recipe.source import Marks
from lorakit.registry import Registry
from lorakit.tasks import Data, tasks

SECTIONS: Sections = {
    "": Recipe,
    "model": Model,
    "data": Data,
    "train": Train,
    "evaluate": Evaluate,
    "decode": Decode,
    "expect": Expect,
}
PLUGINS: dict[str, Registry[Any]] = {"method": methods, "task": tasks}
"""Sections whose fields depend on their name."""


def validate(data: dict[str, Any], marks: Marks) -> Recipe:
    """Plain data to a `Recipe`. RecipeError: everything that is wrong with it."""
    problems: list[str] = []
    sections = dict(SECTIONS)
    built = dict(data)
    broken = set()
    for key in ("method", "task", "model"):
        if isinstance(built.get(key), str):
            built[key] = {"name": built[key]}  # `method: full` means `method: {name: full}`
    for key, registry in PLUGINS.items():
        if not isinstance(built.get(key), dict):
            continue
        try:
            sections[key] = _class_of(key, registry, built[key], marks)
            built[key] = sections[key].model_validate(built[key])
        except ValidationError as error:
            problems += describe(error, (key,), marks, sections)
            broken.add(key)
        except RecipeError as error:
            problems.append(str(error))
            broken.add(key)
    try:
        # without a broken section this fails too: both are required
        return Recipe.model_validate({k: v for k, v in built.items() if k not in broken})
    except ValidationError as error:
        for line in describe(error, (), marks, sections):
            # a broken section was left out here, and has been described above
            if not any(f": {key}: " in line for key in broken):
                problems.append(line)
    raise RecipeError(listing(_file_of(marks), problems))


def _class_of(
    key: str, registry: Registry[Any], value: dict[str, Any], marks: Marks
) -> type[BaseModel]:
    """The method or task that a section names."""
    where = f"{mark_of((key, 'name'), marks)}: {key}"
    name = value.get("name")
    if not isinstance(name, str):
        raise RecipeError(f"{where}: give its name, one of {', '.join(registry.names())}")
    try:
        return registry.get(name.split("/")[0])
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None


def _file_of(marks: Marks) -> str:
    files = [mark.file for mark in marks.values() if mark.line]
    return files[-1] if files else "the recipe"
