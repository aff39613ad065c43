"""`lorakit score`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorakit.cli import app
from lorakit.cli.output import Json, Overrides, begin, console, end_with, give, known


@app.command()
def score(
    task: Annotated[
        str, typer.Argument(help="The task whose metrics are wanted, such as glue/mrpc or e2e.")
    ],
    overrides: Overrides = None,
    predictions: Annotated[
        Path,
        typer.Option(
            help='JSONL, {"prediction": ...} per line; or text, one per line; or TSV, the last column.'
        ),
    ] = ...,  # type: ignore[assignment]
    references: Annotated[
        Path | None,
        typer.Option(help='JSONL, {"reference": ...} or {"references": [...]} per line.'),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Without --references: the task's own split (data.path=FOLDER).")
    ] = "test",
    as_json: Json = False,
) -> None:
    """Score a file of predictions; no model is needed."""
    begin(models=False)
    from lorakit.verbs.score import score_files, score_split

    if references is not None:
        found = score_files(task, predictions, references)
    else:
        found = score_split(task, predictions, split, overrides or [])
    say = console().print
    for note in found.notes:
        say(f"note: {note}", markup=False)
    for metric, value in known(found.scores, found.failed).items():
        say(
            f"{task}  {metric} {value:.4g}" if abs(value) < 10 else f"{task}  {metric} {value:.2f}",
            markup=False,
        )
    say(f"{found.n} examples" + (f"; {found.protocol}" if found.protocol else ""), markup=False)
    give(
        {
            "task": task,
            "scores": found.scores,
            "n": found.n,
            "protocol": found.protocol,
            "notes": found.notes,
            "failed": found.failed,
        },
        as_json,
    )
    end_with(found.failed)
