"""`lorakit analyze`"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lorakit.cli import app
from lorakit.cli.options import AnyBase, BaseModel, Format, Json, Seed, TrustRemoteCode
from lorakit.cli.output import begin, console, give
from lorakit.cli.visible import show


class What(str, Enum):
    subspace = "subspace"
    amplification = "amplification"
    rank = "rank"
    full = "full"
    intruders = "intruders"
    norms = "norms"


@app.command()
def analyze(
    what: Annotated[What, typer.Argument(help="The question.")],
    runs: Annotated[
        list[str],
        typer.Argument(help="Run folders, one seed of one (RUN/seed1), or adapter folders."),
    ],
    site: Annotated[
        str | None,
        typer.Option(help="Only these weights: a role, a name, the end of a path, or a glob."),
    ] = None,
    layer: Annotated[
        int | None, typer.Option(help="Only this layer; subspace draws the middle one.", min=0)
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="intruders: below this cosine; default 0.5.", min=0, max=1)
    ] = None,
    top: Annotated[
        int | None, typer.Option(help="intruders: among the first so many; default 10.", min=1)
    ] = None,
    model: BaseModel = None,
    seed: Seed = None,
    any_base: AnyBase = False,
    trust_remote_code: TrustRemoteCode = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files; default: analysis/ of the first run.")
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="How the table is written.")
    ] = Format.plain,
    as_json: Json = False,
) -> None:
    """What training did to the weights: the paper's section 7, and what its reviewers ask for."""
    begin()
    from lorakit.analysis._run import Request, analyze
    from lorakit.analysis._source import Choice

    request = Request(runs, Choice(site, layer), model, seed, any_base, epsilon, top)
    answer, files = analyze(what.value, request, out)
    say = console().print
    for trained in answer.trained:
        say(f"{trained.name}: {trained.source.why or trained.method}", markup=False)
    if answer.note:
        say(answer.note, markup=False)
    say("written: " + ", ".join(map(str, files)), markup=False, soft_wrap=True)
    if as_json:
        give(answer.values(what.value) | {"files": [str(file) for file in files]}, True)
    else:
        show(getattr(answer.table, form.value)())
