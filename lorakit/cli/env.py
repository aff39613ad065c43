"""`lorakit env` and `lorakit schema`"""

from __future__ import annotations

import json

from lorakit.cli import app
from lorakit.cli.output import Json, console, give
from lorakit.cli.visible import show_exactly


@app.command()
def env(as_json: Json = False) -> None:
    """Versions and devices, to copy into a bug report."""
    from lorakit.runs.environment import environment

    found = environment()
    for key, value in found.items():
        if isinstance(value, dict):
            value = [f"{name} {number}" for name, number in value.items()]
        text = ", ".join(value) if isinstance(value, list) else value
        console().print(f"{key}: {text}", markup=False, soft_wrap=True)
    give(found, as_json)


@app.command()
def schema() -> None:
    """The JSON schema of recipes, for editors (`# yaml-language-server: $schema=...`)."""
    from lorakit.recipe.schema import json_schema

    show_exactly(json.dumps(json_schema(), indent=2) + "\n")
