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
            help="Run folders, or seeds of them; the others are compared with the first."
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(help="Split; by default one that no epoch was chosen on, if there is one."),
    ] = None,
    resamples: Annotated[
        int, typer.Option(help="Number of resamples of the examples.", min=100)
    ] = 10_000,
    form: Annotated[Format, typer.Option("--format", help="Format of the table.")] = Format.plain,
    as_json: Json = False,
) -> None:
    """Test whether the difference between runs is more than chance, over examples and seeds.

    Example: lorakit compare runs/lora runs/bitfit
    """
    begin(models=False)
    from lorakit.compare.run import compare as run_compare
    from lorakit.compare.table import sentence, table

    found = run_compare(runs, split, resamples)
    lines = [sentence(row) for row in found.rows if row.primary]
    lines += [f"note: {note}" for note in found.notes]
    for reason in dict.fromkeys(found.left_out.values()):
        metrics = ", ".join(metric for metric, why in found.left_out.items() if why == reason)
        lines.append(f"not tested over examples: {metrics}; {reason}")
    for line in lines:
        console().print(line, markup=False, soft_wrap=True)
    if as_json:
        give(found.plain(), True)
    else:
        show(getattr(table(found), form.value)())
