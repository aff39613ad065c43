"""`lorakit analyze`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorakit.analysis import analyses
from lorakit.cli import app
from lorakit.cli.options import AnyBase, BaseModel, Format, Json, Seed, TrustRemoteCode
from lorakit.cli.output import begin, console, give
from lorakit.cli.visible import show


@app.command(epilog="Example: lorakit analyze rank runs/my-run")
def analyze(
    what: Annotated[
        str,
        typer.Argument(help=f"The question: {', '.join(analyses.own_names())}.", metavar="WHAT"),
    ],
    runs: Annotated[
        list[str], typer.Argument(help="Run folders, folders of one seed, or adapter folders.")
    ],
    site: Annotated[
        str | None,
        typer.Option(help="Only these weights: a role, a name, the end of a path, or a glob."),
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option(help="Only this layer. subspace draws the middle one by default.", min=0),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(help="intruders: largest cosine of an intruder; default 0.5.", min=0, max=1),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(help="intruders: number of singular vectors to test; default 10.", min=1),
    ] = None,
    model: BaseModel = None,
    seed: Seed = None,
    any_base: AnyBase = False,
    trust_remote_code: TrustRemoteCode = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the files. Default: analysis/ in the first run's folder."),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="Format of the table.")] = Format.plain,
    as_json: Json = False,
) -> None:
    """Analyze what training did to the weights, as in section 7 of the LoRA paper."""
    begin()
    from lorakit.analysis._base import Request
    from lorakit.analysis._run import analyze
    from lorakit.analysis._sites import SiteFilter
    from lorakit.runs.pointer import Pointer

    pointers = [Pointer(run, base=model, seed=seed, any_base=any_base) for run in runs]
    given = {"epsilon": epsilon, "top": top}
    options = {name: value for name, value in given.items() if value is not None}
    findings, files = analyze(what, Request(pointers, SiteFilter(site, layer), options), out)
    say = console().print
    for run in findings.runs:
        say(f"{run.name}: {run.source.why or run.method}", markup=False)
    if findings.note:
        say(findings.note, markup=False)
    say("written: " + ", ".join(map(str, files)), markup=False, soft_wrap=True)
    if as_json:
        give(findings.to_json(what) | {"files": [str(file) for file in files]}, True)
    else:
        show(getattr(findings.table, form.value)())
