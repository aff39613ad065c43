"""`lorakit study`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorakit.cli import app
from lorakit.cli.options import Format, Json, Overrides, Runs, TrustRemoteCode
from lorakit.cli.output import begin, console, give
from lorakit.cli.visible import show
from lorakit.errors import Stopped

if TYPE_CHECKING:
    from rich.table import Table

    from lorakit.studies.result import StudyResult

COLOURS = {
    "done": "green",
    "running": "cyan",
    "failed": "bold red",
    "stopped": "yellow",
    "waiting": "dim",
}
STATE_COLUMN = 1
Launcher = Annotated[str, typer.Option(help="Launcher of the runs: local or slurm.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        help="Number of runs at a time; by default one per visible GPU, or one; on Slurm all.",
        min=1,
    ),
]


def complete_study(incomplete: str) -> list[str]:
    """Shell completion of study names."""
    from lorakit.studies.plan import study_names

    return [name for name in study_names() if name.startswith(incomplete)]


@app.command()
def study(
    study: Annotated[
        str,
        typer.Argument(
            help="Study file, or name of a shipped study.",
            metavar="STUDY",
            autocompletion=complete_study,
        ),
    ],
    overrides: Overrides = None,
    launcher: Launcher = "local",
    runs: Runs = Path("runs"),
    jobs: Jobs = None,
    status: Annotated[
        bool, typer.Option("--status", help="Show the state of the study, and start nothing.")
    ] = False,
    form: Annotated[
        Format, typer.Option("--format", help="Format of the table of scores.")
    ] = Format.plain,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Run recipes x overrides x seeds, here or on a cluster. Finished runs are not run again.

    Example: lorakit study mrpc_rank --jobs 2
    """
    from lorakit.studies.plan import load_study

    plan = load_study(study, overrides or [])
    begin(models=False)
    from lorakit.studies.run import look, run_study, study_folder
    from lorakit.studies.tables import study_table

    if status:
        found = look(plan, runs)
    else:
        try:
            with Watching() as watch:
                found = run_study(plan, runs, launcher, jobs, watch)
        except KeyboardInterrupt:
            console().print(states(look(plan, runs)))
            raise stopped() from None
    console().print(states(found))
    if as_json:
        give(found.model_dump(mode="json") | {"counts": found.counts()}, True)
    else:
        show(getattr(study_table(found), form.value)())
    if status:
        return
    folder = study_folder(plan, runs)
    paths = f"study: {folder}   page: {folder / 'report.html'}"
    console().print(paths, soft_wrap=True, markup=False)
    if found.counts().get("failed"):
        raise typer.Exit(1)


def stopped() -> Stopped:
    return Stopped("stopped; the same command resumes")


def states(found: StudyResult) -> Table:
    """A row per run, its state in colour."""
    from rich.table import Table

    from lorakit.cli.screen import styled
    from lorakit.studies.tables import state_table

    plain = state_table(found)
    table = Table(
        box=None, pad_edge=False, header_style="bold", title=plain.caption, title_justify="left"
    )
    for i, name in enumerate(plain.header):
        is_text = i < plain.names or name == "note"
        table.add_column(name, justify="left" if is_text else "right", overflow="fold")
    for row in plain.rows:
        cells = [styled(cell, "") for cell in row]
        state = row[STATE_COLUMN]
        cells[STATE_COLUMN] = styled(state, COLOURS[state])
        table.add_row(*cells)
    return table


class Watching:
    """The live display of a study: on a terminal one table, elsewhere a line for each change."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def __enter__(self) -> Watching:
        from rich.live import Live

        self.live = None
        if console().is_terminal:
            self.live = Live(console=console(), transient=True, refresh_per_second=2)
            self.live.start()
        return self

    def __call__(self, found: StudyResult) -> None:
        if self.live is not None:
            self.live.update(states(found))
            return
        for cell in found.cells:
            if cell.state != self.known.get(cell.run, "waiting"):
                note = f": {cell.note}" if cell.note else ""
                console().print(f"{cell.state}  {cell.label}{note}", markup=False, soft_wrap=True)
            self.known[cell.run] = cell.state

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()
