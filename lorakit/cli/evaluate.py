"""`lorakit eval`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorakit.cli import app
from lorakit.cli.output import (
    Json,
    Overrides,
    TrustRemoteCode,
    begin,
    console,
    end_with,
    give,
    known,
)

Task = Annotated[
    str | None,
    typer.Option(help="The task, where the adapter or model does not say it: glue/mrpc."),
]
BaseModel = Annotated[
    str | None,
    typer.Option("--model", help="The base model, if not the one that the adapter names."),
]
Seed = Annotated[
    int | None, typer.Option(help="Which seed of a run; by default the only or the best one.")
]
AnyBase = Annotated[
    bool,
    typer.Option("--any-base", help="Go on although the base's weights are not the adapter's."),
]


@app.command("eval")
def evaluate(
    path: Annotated[
        str, typer.Argument(help="A run folder, an adapter folder, a hub id, or a merged model.")
    ],
    overrides: Overrides = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Which split; may be given again. Default: the task's.")
    ] = None,
    task: Task = None,
    model: BaseModel = None,
    seed: Seed = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for predictions; default: eval/ of a run's seed, else NAME-eval beside PATH."
        ),
    ] = None,
    any_base: AnyBase = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Score an adapter or a merged model, beside its base; predictions are saved."""
    begin()
    from lorakit.cli.progress import Progress
    from lorakit.verbs.evaluate import evaluate as run_evaluate

    progress = Progress()
    found = run_evaluate(
        path, split or (), task, model, seed, overrides or [], out, any_base, progress
    )
    say = console().print
    if found.why:
        say(f"{found.what}: {found.why}", markup=False)
    for name in found.rows:
        for metric, value in known(found.scores.get(name, {}), found.failed).items():
            base = found.base_scores.get(name, {}).get(metric)
            part = f", {found.slices[name]}" if name in found.slices else ""
            beside = "" if base is None else f"   (adapter off{part}: {base:.2f})"
            say(f"{found.task} {name}  {metric} {value:.2f}{beside}", markup=False)
        if found.cut[name]:
            of = f"{found.cut[name]} of {found.rows[name]}"
            say(f"{found.task} {name}  {of} answers were cut at decode.max_new_tokens")
    if found.effect is not None:
        say(f"the adapter is on: it changes a logit by {found.effect:.3g} (relative)")
    say("written: " + ", ".join(map(str, found.files)), markup=False, soft_wrap=True)
    give(
        {
            "path": found.what,
            "task": found.task,
            "scores": found.scores,
            "base_scores": found.base_scores,
            "base_slices": found.slices,
            "adapter_effect": found.effect,
            "rows": found.rows,
            "cut": found.cut,
            "files": [str(f) for f in found.files],
            "failed": found.failed,
        },
        as_json,
    )
    end_with(found.failed)
