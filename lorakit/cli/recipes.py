"""`lorakit recipes list|show|copy`"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from lorakit.cli import recipes_app
from lorakit.cli.output import Json, Overrides, RecipeName, console, give
from lorakit.cli.visible import can_show, show_exactly


@recipes_app.command("list")
def list_recipes(
    containing: Annotated[str, typer.Argument(help="Only names that contain this.")] = "",
    as_json: Json = False,
) -> None:
    """Every recipe that ships, with what it trains and what it should show."""
    from rich.table import Table

    from lorakit.cli.screen import on_stdout
    from lorakit.recipe.load import load_recipe, names

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("recipe", "task", "base model", "method", "published"):
        table.add_column(column, overflow="fold")
    rows = []
    for name in names():
        if containing not in name:
            continue
        recipe = load_recipe(name).recipe
        published = ", ".join(f"{k} {v.value:g}" for k, v in recipe.expect.scores.items())
        rows.append(
            {
                "recipe": name,
                "task": recipe.task.name,
                "model": recipe.model.name,
                "method": recipe.method.name,
                "published": published,
                "about": recipe.about,
            }
        )
        table.add_row(name, recipe.task.name, recipe.model.name, recipe.method.name, published)
    if as_json:
        give({"recipes": rows}, True)
    else:
        on_stdout().print(table)


@recipes_app.command()
def show(
    recipe: RecipeName,
    overrides: Overrides = None,
    origins: Annotated[
        bool, typer.Option("--origins", help="Where each value comes from: paper, script, ours.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The resolved recipe: what `extends` and overrides come to."""
    from lorakit.recipe.load import load_recipe
    from lorakit.recipe.source import dump_yaml

    loaded = load_recipe(recipe, overrides or [])
    for note in loaded.notes:
        console().print(f"note: {note}")
    plain = loaded.recipe.plain()
    notes = {
        k: {"source": o.source, "note": o.note, "where": str(o.mark)}
        for k, o in loaded.origins.items()
    }
    if as_json:
        give({"recipe": plain, **({"origins": notes} if origins else {})}, True)
    elif origins:
        _print_origins(plain, notes)
    else:
        text = dump_yaml(plain)
        # YAML's own escapes where the terminal cannot take a character as it is
        show_exactly(text if can_show(text) else dump_yaml(plain, unicode=False))


@recipes_app.command()
def copy(
    recipe: RecipeName,
    to: Annotated[Path, typer.Argument(help="The new file, or a folder for it.")] = Path("."),
) -> None:
    """Copy a shipped recipe, to change it; what it extends stays where it is."""
    from lorakit.errors import RecipeError
    from lorakit.recipe.load import find
    from lorakit.shell import quote

    source = find(recipe)
    target = to / source.name if to.is_dir() else to
    if target.exists():
        raise RecipeError(f"{target} is there already; choose another name")
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise RecipeError(f"cannot write {target}: {error.strerror}") from error
    console().print(f"copied to {target}; `lorakit train {quote(str(target))}` runs it")


def _print_origins(plain: dict, notes: dict) -> None:
    from rich.table import Table

    from lorakit.cli.screen import on_stdout

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("value", "", "origin", "note", "where"):
        table.add_column(column, overflow="fold")
    for key, note in notes.items():
        at = plain
        for part in key.split("."):
            at = at.get(part, {}) if isinstance(at, dict) else {}
        table.add_row(key, str(at), note["source"], note["note"], note["where"])
    on_stdout().print(table)
