"""`lorakit study`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorakit.cli import app
from lorakit.cli.options import Format, Json, Overrides, Runs, TrustRemoteCode
from lorakit.cli.output import begin, console, give
from lorakit.cli.visible import show
from lorakit.errors import Stopped

if TYPE_CHECKING:
    from lorakit.studies.report import StudyResult

COLOURS = {
    "done": "green",
    "running": "cyan",
    "failed": "bold red",
    "stopped": "yellow",
    "waiting": "dim",
}


def complete_study(incomplete: str) -> list[str]:
    """Shell completion of study names."""
    from lorakit.studies.grid import study_names

    return [name for name in study_names() if name.startswith(incomplete)]


@app.command()
def study(
    study: Annotated[
        str,
        typer.Argument(
            help="A study file, or a shipped study's name.",
            metavar="STUDY",
            autocompletion=complete_study,
        ),
    ],
    overrides: Overrides = None,
    launcher: Annotated[str, typer.Option(help="Where the runs run: local or slurm.")] = "local",
    runs: Runs = Path("runs"),
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Runs at a time; by default one per visible GPU, or one; on Slurm all.", min=1
        ),
    ] = None,
    status: Annotated[
        bool, typer.Option("--status", help="Say how the study stands, and start nothing.")
    ] = False,
    form: Annotated[
        Format, typer.Option("--format", help="How the table of scores is written.")
    ] = Format.plain,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Many runs: recipes x overrides x seeds, here or on a cluster. What is done already is not run again."""
    from lorakit.studies.grid import load_study

    plan = load_study(study, overrides or [])
    begin(models=False)
    from lorakit.studies.report import study_table
    from lorakit.studies.run import look, run_study, study_folder

    if status:
        found = look(plan, runs)
    else:
        try:
            with Watching() as watch:
                found = run_study(plan, runs, launcher, jobs, watch)
        except KeyboardInterrupt:
            console().print(states(look(plan, runs)))
            raise Stopped("stopped; the same command goes on from here") from None
    console().print(states(found))
    if as_json:
        give(found.model_dump(mode="json") | {"counts": found.counts()}, True)
    else:
        show(getattr(study_table(found), form.value)())
    if not status:
        folder = study_folder(plan, runs)
        console().print(
            f"study: {folder}   page: {folder / 'report.html'}", soft_wrap=True, markup=False
        )
    if not status and found.counts().get("failed"):
        raise typer.Exit(1)


def states(found: StudyResult) -> Any:
    """A row per run, its state in colour."""
    from rich.table import Table

    from lorakit.cli.screen import styled
    from lorakit.studies.report import state_table

    plain = state_table(found)
    table = Table(
        box=None, pad_edge=False, header_style="bold", title=plain.caption, title_justify="left"
    )
    for i, name in enumerate(plain.header):
        table.add_column(
            name, justify="left" if i < plain.names or name == "note" else "right", overflow="fold"
        )
    for row in plain.rows:
        table.add_row(
            *(styled(cell, COLOURS[cell] if i == 1 else "") for i, cell in enumerate(row))
        )
    return table


class Watching:
    """On a terminal one live table; elsewhere a line whenever a run starts or ends."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def __enter__(self) -> Watching:
        from rich.live import Live

        self.live = (
            Live(console=console(), transient=True, refresh_per_second=2)
            if console().is_terminal
            else None
        )
        if self.live is not None:
            self.live.start()
        return self

    def __call__(self, found: StudyResult) -> None:
        if self.live is not None:
            self.live.update(states(found))
            return
        for cell in found.cells:
            if cell.state != self.known.get(cell.run, "waiting"):
                said = f": {cell.note}" if cell.note else ""
                console().print(f"{cell.state}  {cell.label}{said}", markup=False, soft_wrap=True)
            self.known[cell.run] = cell.state

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()
