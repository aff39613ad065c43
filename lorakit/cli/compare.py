"""`lorakit compare`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorakit.cli import app
from lorakit.cli.options import Format, Json
from lorakit.cli.output import begin, console, give
from lorakit.cli.visible import show


@app.command()
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders, or seeds of them; the first is what others are compared with."
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(
            help="Which split; by default one that no epoch was chosen on, if there is one."
        ),
    ] = None,
    resamples: Annotated[int, typer.Option(help="Resamples of the examples.", min=100)] = 10_000,
    form: Annotated[
        Format, typer.Option("--format", help="How the table is written.")
    ] = Format.plain,
    as_json: Json = False,
) -> None:
    """Is the difference of two runs more than chance? Over examples, and over seeds where there are several."""
    begin(models=False)
    from lorakit.compare.run import compare as run_compare
    from lorakit.compare.table import sentence, table

    found = run_compare(runs, split, resamples)
    say = console().print
    for row in found.rows:
        if row.primary:
            say(sentence(row), markup=False, soft_wrap=True)
    for note in found.notes:
        say(f"note: {note}", markup=False, soft_wrap=True)
    for why in dict.fromkeys(found.left_out.values()):
        metrics = ", ".join(metric for metric, reason in found.left_out.items() if reason == why)
        say(f"not tested over examples: {metrics}; {why}", markup=False, soft_wrap=True)
    if as_json:
        give(found.plain(), True)
    else:
        show(getattr(table(found), form.value)())
