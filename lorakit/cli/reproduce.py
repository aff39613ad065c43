"""`lorakit reproduce`"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lorakit.cli import app
from lorakit.cli.options import Json, Overrides, Runs, TrustRemoteCode
from lorakit.cli.output import begin, console, give
from lorakit.cli.study import Watching, states
from lorakit.cli.visible import show
from lorakit.errors import Stopped


class Format(str, Enum):
    plain = "plain"
    md = "md"
    csv = "csv"
    latex = "latex"
    html = "html"


def complete_table(incomplete: str) -> list[str]:
    """Shell completion of table names."""
    from lorakit.studies.paper import table_names

    return [name for name in table_names() if name.startswith(incomplete)]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


@app.command()
def reproduce(
    table: Annotated[
        str,
        typer.Argument(
            help="A table of the paper: table2, table3 ...", autocompletion=complete_table
        ),
    ],
    overrides: Overrides = None,
    rows: Annotated[
        str, typer.Option(help="Only these, by row or method, with commas between them.")
    ] = "",
    columns: Annotated[str, typer.Option(help="Only these, with commas between them.")] = "",
    seeds: Annotated[
        int | None, typer.Option(help="So many of each run; by default the paper's number.", min=1)
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help="A small run: so many examples of each split. Nothing is then compared.", min=1
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Another base in place of the paper's: minilm ...")
    ] = None,
    runs: Runs = Path("runs"),
    results: Annotated[
        Path,
        typer.Option(
            help="Files of results that are taken where they are of the same recipe.", metavar="DIR"
        ),
    ] = Path("results"),
    launcher: Annotated[str, typer.Option(help="Where the runs run: local or slurm.")] = "local",
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Runs at a time; by default one per visible GPU, or one; on Slurm all.", min=1
        ),
    ] = None,
    status: Annotated[
        bool, typer.Option("--status", help="Say how the table stands, and start nothing.")
    ] = False,
    form: Annotated[
        Format, typer.Option("--format", help="How the table is written.")
    ] = Format.plain,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """A table of the paper with ours beside it. What was run is taken, from runs or from results; the rest is run."""
    from lorakit.studies.selection import load_table

    chosen = load_table(table, base, _names(rows), _names(columns), seeds, limit, overrides or [])
    begin(models=False)
    from lorakit.studies import reproduce as run
    from lorakit.studies.paper_table import paper_table

    try:
        if not status:
            with Watching() as watch:
                run.run_missing(chosen, runs, results, launcher, jobs, watch)
    except KeyboardInterrupt:
        raise Stopped("stopped; the same command goes on from here") from None
    open_, found = run.stands(chosen, runs, results)
    if open_.cells:
        console().print(states(open_))
    if as_json:
        give(
            found.model_dump(mode="json")
            | {"comparable": found.comparable, "counts": found.counts()},
            True,
        )
    else:
        made = paper_table(found)
        show((made.markdown() if form is Format.md else getattr(made, form.value)()).rstrip("\n"))
    for note in found.notes:
        console().print(f"note: {note}", soft_wrap=True, markup=False)
    if not status and open_.counts().get("failed"):
        raise typer.Exit(1)
