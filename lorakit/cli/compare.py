"""`lorakit compare`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from lorakit.cli import app
from lorakit.cli.options import Json, TableFormat
from lorakit.cli.output import by_reason, give, say


@app.command(epilog="Example: lorakit compare runs/lora runs/bitfit")
def compare(
    runs: Annotated[
        list[Path],
        Argument(help="Run folders, or seeds of them; the others are compared with the first."),
    ],
    split: Annotated[
        str | None,
        Option(help="Split; by default one that no epoch was chosen on, if there is one."),
    ] = None,
    resamples: Annotated[
        int, Option(help="Number of resamples of the examples.", min=100)
    ] = 10_000,
    form: TableFormat = "plain",
    as_json: Json = False,
) -> None:
    """Test whether the difference between runs is more than chance, over examples and seeds."""
    from lorakit.compare.run import compare as run_compare
    from lorakit.compare.table import sentence, table

    found = run_compare(runs, split, resamples)
    lines = [sentence(row) for row in found.rows if row.primary]
    lines += [f"note: {note}" for note in found.notes]
    for reason, metrics in by_reason(found.left_out).items():
        lines.append(f"not tested over examples: {metrics}; {reason}")
    for line in lines:
        say(line)
    give(found.plain(), as_json, table(found), form)
