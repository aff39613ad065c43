"""`lorakit rebase`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorakit.cli import app
from lorakit.cli.options import Format, Json, PointerOptions, TableFormat, grouped
from lorakit.cli.output import begin, console, give, warn
from lorakit.cli.visible import show

if TYPE_CHECKING:
    from lorakit.verbs.rebase import Rebased


@app.command(epilog="Example: lorakit rebase runs/my-run --onto NEWER_MODEL --to moved")
@grouped
def rebase(
    *,
    onto: Annotated[
        str,
        typer.Option(
            help="The other base, with the same shapes: folder or hub id.", metavar="NAME"
        ),
    ],
    to: Annotated[
        Path, typer.Option(help="Folder of the adapter; empty, or not there yet.", metavar="DIR")
    ],
    no_eval: Annotated[
        bool, typer.Option("--no-eval", help="Do not score anything; no data is needed.")
    ] = False,
    pointed: PointerOptions,
    form: TableFormat = Format.plain,
    as_json: Json = False,
) -> None:
    """Put an adapter's change on another base of the same shapes.

    The change is kept as it is (fine-tuning transfer). It is scored on both
    bases, if its task is known.
    """
    begin()
    from lorakit.verbs.rebase import rebase as run_rebase

    found = run_rebase(pointed.pointer(), onto, to, not no_eval)
    _print(found)
    if as_json:
        give({"adapter": str(to), **found.plain()}, True)
    elif found.scored.tasks:
        show(getattr(found.scored.table(), form.value)())


def _print(found: Rebased) -> None:
    say = console().print
    say(
        f"{found.adapter}: from {found.before} to {found.after}, {found.sites} weights",
        markup=False,
    )
    say(found.note, markup=False)
    for metric, why in found.scored.failed.items():
        warn(f"{metric} is not computed: {why}")
    say(f"adapter: {found.folder}", markup=False, soft_wrap=True)
