"""The JSON schema of recipe files, for editors."""

from __future__ import annotations

from typing import Any

from lorakit.methods import methods
from lorakit.recipe.schema import Recipe
from lorakit.tasks import tasks


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe file, with an alternative for each method and task."""
    schema = Recipe.model_json_schema()
    definitions = schema["$defs"]
    for key, registry in (("method", methods), ("task", tasks)):
        alternatives: list[dict[str, Any]] = [{"type": "string"}]
        for name in registry.names():
            part = registry.get(name).model_json_schema()
            definitions.update(part.pop("$defs", {}))
            definitions[f"{key}_{name}"] = part
            alternatives.append({"$ref": f"#/$defs/{key}_{name}"})
        schema["properties"][key] = {
            "anyOf": alternatives,
            "description": f"A {key}, by name, with its own values.",
        }
    schema["properties"]["model"] = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Model"}]}
    schema["properties"]["extends"] = {
        "description": "Fragments in configs/ that this recipe extends; later ones win, "
        "and the recipe wins over all.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    schema["required"] = []  # a fragment may have any of them
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "lorakit recipe",
    }
