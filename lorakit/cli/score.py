"""`lorakit score`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorakit.cli import app
from lorakit.cli.output import Json, console, give


@app.command()
def score(
    task: Annotated[str, typer.Argument(help="The task whose metrics are wanted, such as glue/mrpc.")],
    predictions: Annotated[Path, typer.Option(help='JSONL, {"prediction": ...} per line.')],
    references: Annotated[Path, typer.Option(help='JSONL, {"reference": ...} or {"references": [...]} per line.')],
    as_json: Json = False,
) -> None:
    """Score a file of predictions; no model is needed."""
    from lorakit.run.score import score_files

    scores, n = score_files(task, predictions, references)
    for metric, value in scores.items():
        console().print(f"{task}  {metric} {value:.2f}  ({n} predictions)", markup=False)
    give({"task": task, "scores": scores, "n": n}, as_json)
