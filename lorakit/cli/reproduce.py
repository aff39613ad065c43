"""`lorakit reproduce`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from lorakit.cli import app
from lorakit.cli.options import comma_separated, completed_by, grouped
from lorakit.cli.output import give, say
from lorakit.cli.study import StudyOptions, states, watching


@app.command(epilog="Example: lorakit reproduce table2 --rows lora --columns mrpc,rte")
@grouped
def reproduce(
    *,
    table: Annotated[
        str,
        Argument(
            help="Table of the paper, such as table2.",
            metavar="TABLE",
            autocompletion=completed_by("lorakit.studies.paper_table", "table_names"),
        ),
    ],
    rows: Annotated[
        str, Option(help="Rows, by name or method, comma-separated.", metavar="NAMES")
    ] = "",
    columns: Annotated[str, Option(help="Columns, comma-separated.", metavar="NAMES")] = "",
    seeds: Annotated[
        int | None,
        Option(help="Number of seeds per run. Default: that of the paper.", min=1, metavar="N"),
    ] = None,
    limit: Annotated[
        int | None,
        Option(
            help="Number of examples per split, for a trial; scores are not compared then.",
            min=1,
            metavar="N",
        ),
    ] = None,
    base: Annotated[
        str | None, Option(help="Base in place of the paper's, such as minilm.", metavar="NAME")
    ] = None,
    results: Annotated[
        Path,
        Option(
            help="Folder of earlier results, which are used where the recipe is the same.",
            metavar="DIR",
        ),
    ] = Path("results"),
    options: StudyOptions,
) -> None:
    """Compare a table of the paper with runs of lorakit.

    Finished runs are used, and the others are trained. The same command resumes
    after a stop.
    """
    from lorakit.studies.paper_plan import Selection, load_reproduction
    from lorakit.studies.paper_result import comparison_table
    from lorakit.studies.reproduce import progress_of, run_missing

    selection = Selection(
        base=base,
        rows=comma_separated(rows),
        columns=comma_separated(columns),
        seeds=seeds,
        limit=limit,
        overrides=options.overrides or [],
    )
    chosen = load_reproduction(table, selection)
    runs = options.runs
    if not options.status:
        with watching() as watch:
            run_missing(chosen, runs, results, options.launcher, options.jobs, watch)
    study, found = progress_of(chosen, runs, results)
    if study.cells:
        say(states(study))
    facts = {"comparable": found.comparable, "counts": found.counts()}
    result = found.model_dump(mode="json") | facts
    give(result, options.as_json, comparison_table(found), options.form)
    if not options.as_json:
        for note in found.notes:
            say(f"note: {note}")
    if not options.status and study.counts().get("failed"):
        raise Exit(1)
