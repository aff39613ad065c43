"""`lorakit report`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorakit.cli import app
from lorakit.cli.options import Format, Json, TableFormat
from lorakit.cli.output import console, give
from lorakit.cli.visible import show


@app.command(epilog="Example: lorakit report runs/first runs/second --format markdown")
def report(
    results: Annotated[
        list[Path], typer.Argument(help="Run folders, result.json files, or the folder of a study.")
    ],
    form: TableFormat = Format.plain,
    as_json: Json = False,
) -> None:
    """Show the table of one run or study, or of several runs.

    The page of a single run or study is written again.
    """
    if len(results) == 1 and (results[0] / "study.json").is_file():
        _report_study(results[0], form, as_json)
        return
    from lorakit.report.table import comparison, score_table
    from lorakit.runs.result import Result
    from lorakit.verbs.train import write_report

    found = [Result.read(path / "result.json" if path.is_dir() else path) for path in results]
    table = score_table(found[0]) if len(found) == 1 else comparison(found)
    if len(found) == 1 and results[0].is_dir():
        write_report(results[0], found[0])
        console().print(f"page: {results[0] / 'report.html'}")
    if as_json:
        give({"results": [r.model_dump(mode="json") for r in found]}, True)
    else:
        show(getattr(table, form.value)())


def _report_study(folder: Path, form: Format, as_json: bool) -> None:
    from lorakit.studies.run import redraw
    from lorakit.studies.tables import study_table

    study = redraw(folder)
    console().print(f"page: {folder / 'report.html'}")
    if as_json:
        give(study.model_dump(mode="json") | {"counts": study.counts()}, True)
    else:
        show(getattr(study_table(study), form.value)())
