"""Sections that a plug-in defines: a name, or a mapping with a name, becomes its class."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, BeforeValidator

from lorakit.errors import RecipeError
from lorakit.registry import Registry


def named(section: Any) -> Any:
    """A section that may be given by its name alone: `method: full` is `{name: full}`."""
    return {"name": section} if isinstance(section, str) else section


def plugin_class(registry: Registry[Any], section: dict[str, Any]) -> type[BaseModel]:
    """The class that a section names; that of `glue/mrpc` is `glue`'s.

    RecipeError: the section does not give a name, or nothing has it.
    """
    name = section.get("name")
    if not isinstance(name, str):
        raise RecipeError(f"give its name, one of {', '.join(registry.names())}")
    return registry.get(name.split("/")[0])


def plugin_of(registry: Registry[Any]) -> BeforeValidator:
    """Plain values become the class that their name names."""

    def plugin(section: Any) -> Any:
        section = named(section)
        # A method or a task that Python code made is taken as it is.
        if isinstance(section, dict):
            return plugin_class(registry, section).model_validate(section)
        return section

    return BeforeValidator(plugin)
