"""`lorakit reproduce`"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorakit.cli import app
from lorakit.cli.options import Json, Overrides, Runs, TrustRemoteCode
from lorakit.cli.output import begin, console, give
from lorakit.cli.study import Jobs, Launcher, Watching, states, stopped
from lorakit.cli.visible import show

if TYPE_CHECKING:
    from lorakit.studies.paper_result import PaperResult


class Format(str, Enum):
    plain = "plain"
    md = "md"
    csv = "csv"
    latex = "latex"
    html = "html"


def complete_table(incomplete: str) -> list[str]:
    """Shell completion of table names."""
    from lorakit.studies.paper_table import table_names

    return [name for name in table_names() if name.startswith(incomplete)]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


@app.command()
def reproduce(
    table: Annotated[
        str,
        typer.Argument(
            help="Table of the paper: table2, table3 ...", autocompletion=complete_table
        ),
    ],
    overrides: Overrides = None,
    rows: Annotated[str, typer.Option(help="Rows by name or method, comma-separated.")] = "",
    columns: Annotated[str, typer.Option(help="Columns, comma-separated.")] = "",
    seeds: Annotated[
        int | None,
        typer.Option(help="Number of seeds per run; by default the paper's number.", min=1),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help="Number of examples of each split, for a small run. Nothing is compared then.",
            min=1,
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Base that replaces the paper's: minilm ...")
    ] = None,
    runs: Runs = Path("runs"),
    results: Annotated[
        Path,
        typer.Option(
            help="Folder with results of earlier runs, used where the recipe is the same.",
            metavar="DIR",
        ),
    ] = Path("results"),
    launcher: Launcher = "local",
    jobs: Jobs = None,
    status: Annotated[
        bool, typer.Option("--status", help="Show the state of the table, and start nothing.")
    ] = False,
    form: Annotated[Format, typer.Option("--format", help="Format of the table.")] = Format.plain,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Compare a table of the paper with our runs. Finished runs are used, and the rest is run.

    Example: lorakit reproduce table2 --rows lora --columns mrpc,rte
    """
    from lorakit.studies.paper_plan import Selection, load_reproduction

    selection = Selection(
        base=base,
        rows=_names(rows),
        columns=_names(columns),
        seeds=seeds,
        limit=limit,
        overrides=overrides or [],
    )
    chosen = load_reproduction(table, selection)
    begin(models=False)
    from lorakit.studies.reproduce import progress_of, run_missing

    try:
        if not status:
            with Watching() as watch:
                run_missing(chosen, runs, results, launcher, jobs, watch)
    except KeyboardInterrupt:
        raise stopped() from None
    study, found = progress_of(chosen, runs, results)
    if study.cells:
        console().print(states(study))
    _show(found, form, as_json)
    if not status and study.counts().get("failed"):
        raise typer.Exit(1)


def _show(found: PaperResult, form: Format, as_json: bool) -> None:
    from lorakit.studies.paper_result import comparison_table

    if as_json:
        more = {"comparable": found.comparable, "counts": found.counts()}
        give(found.model_dump(mode="json") | more, True)
    else:
        made = comparison_table(found)
        writer = made.markdown if form is Format.md else getattr(made, form.value)
        show(writer().rstrip("\n"))
    for note in found.notes:
        console().print(f"note: {note}", soft_wrap=True, markup=False)
