"""`lorakit recipes list|show|copy`"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from lorakit.cli import app
from lorakit.cli.options import Json, Overrides, RecipeName
from lorakit.cli.output import console, give
from lorakit.cli.visible import can_show, show_exactly

recipes_app = typer.Typer(
    help="List, show and copy the recipes that ship with lorakit.", no_args_is_help=True
)
app.add_typer(recipes_app, name="recipes")


@recipes_app.command("list", epilog="Example: lorakit recipes list mrpc")
def list_recipes(
    containing: Annotated[str, typer.Argument(help="Text that the names must contain.")] = "",
    as_json: Json = False,
) -> None:
    """List the recipes, with what they train and the published scores."""
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
        row = {
            "recipe": name,
            "task": recipe.task.name,
            "model": recipe.model.name,
            "method": recipe.method.name,
            "published": published,
        }
        table.add_row(*row.values())
        rows.append({**row, "about": recipe.about})
    if as_json:
        give({"recipes": rows}, True)
    else:
        on_stdout().print(table)


@recipes_app.command(epilog="Example: lorakit recipes show glue_mrpc --origins")
def show(
    recipe: RecipeName,
    overrides: Overrides = None,
    origins: Annotated[
        bool,
        typer.Option("--origins", help="Print the source of each value: paper, script or ours."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Print a resolved recipe, with `extends` and overrides applied."""
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


@recipes_app.command(epilog="Example: lorakit recipes copy quickstart mine.yaml")
def copy(
    recipe: RecipeName,
    to: Annotated[Path, typer.Argument(help="New file, or a folder for it.")] = Path("."),
) -> None:
    """Copy a recipe, to change the copy. What it extends is not copied."""
    from lorakit.errors import RecipeError
    from lorakit.recipe.load import find
    from lorakit.shell import quote

    source = find(recipe)
    target = to / source.name if to.is_dir() else to
    if target.exists():
        raise RecipeError(f"{target} exists already; choose another name")
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise RecipeError(f"cannot write {target}: {error.strerror}") from error
    console().print(f"copied to {target}; `lorakit train {quote(str(target))}` trains it")


def _print_origins(plain: dict[str, Any], notes: dict[str, dict[str, str]]) -> None:
    from rich.table import Table

    from lorakit.cli.screen import on_stdout

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("value", "", "origin", "note", "where"):
        table.add_column(column, overflow="fold")
    for key, note in notes.items():
        at: Any = plain
        for part in key.split("."):
            at = at.get(part, {}) if isinstance(at, dict) else {}
        table.add_row(key, str(at), note["source"], note["note"], note["where"])
    on_stdout().print(table)
