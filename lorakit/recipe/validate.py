"""Validation of a recipe: plain values to a frozen `Recipe`, or every problem at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, ValidationError

from lorakit.errors import RecipeError
from lorakit.methods import methods
from lorakit.models import Model
from lorakit.recipe.evaluate import Decode, Evaluate
from lorakit.recipe.expect import Expect
from lorakit.recipe.plugged import named, plugin_class
from lorakit.recipe.problems import describe, listing
from lorakit.recipe.schema import Recipe
from lorakit.recipe.source import Marks
from lorakit.recipe.train import Train
from lorakit.tasks import Data, tasks

SECTIONS: dict[str, type[BaseModel]] = {
    "": Recipe,
    "model": Model,
    "data": Data,
    "train": Train,
    "evaluate": Evaluate,
    "decode": Decode,
    "expect": Expect,
}


def validate(data: dict[str, Any], marks: Marks) -> Recipe:
    """Plain data to a `Recipe`. RecipeError: everything that is wrong with it."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        problems = describe(error, marks, SECTIONS | dict(_plugin_sections(data)), data)
        raise RecipeError(listing(_file_of(marks), problems)) from None


def _plugin_sections(data: dict[str, Any]) -> Iterator[tuple[str, type[BaseModel]]]:
    """The classes of the method and the task, where their names are known."""
    for key, registry in (("method", methods), ("task", tasks)):
        section = named(data.get(key))
        if isinstance(section, dict):
            with suppress(RecipeError):
                yield key, plugin_class(registry, section)


def _file_of(marks: Marks) -> str:
    files = [mark.file for mark in marks.values() if mark.line]
    return files[-1] if files else "the recipe"
