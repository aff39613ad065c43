"""`lorakit import`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorakit.cli import app
from lorakit.cli.output import Json, Overrides, RecipeName, TrustRemoteCode, begin, console, give


@app.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(help="A .bin or .pt of the paper's reference code (loralib).")
    ],
    recipe: RecipeName,
    to: Annotated[Path, typer.Option(help="Folder of the adapter; must be empty or not there.")],
    overrides: Overrides = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Make an adapter folder of a checkpoint of the paper's reference code; the recipe says base, targets and alpha."""
    begin()
    from lorakit.verbs.importing import import_checkpoint

    found = import_checkpoint(file, recipe, to, overrides or [])
    say = console().print
    say(
        f"{found.counts.sites} sites on {found.base}, rank {found.r}, alpha {found.alpha:g} (alpha is the recipe's): "
        f"{found.counts.trainable:,} parameters, and {found.counts.fresh:,} of the head",
        markup=False,
    )
    say(f"adapter: {to}   score it: lorakit eval {to}", markup=False, soft_wrap=True)
    give(
        {
            "adapter": str(to),
            "base": found.base,
            "task": found.task,
            "r": found.r,
            "alpha": found.alpha,
            **found.counts.model_dump(),
        },
        as_json,
    )
