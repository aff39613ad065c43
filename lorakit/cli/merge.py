"""`lorakit merge`"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lorakit.cli import app
from lorakit.cli.evaluate import AnyBase, BaseModel, Seed, Task
from lorakit.cli.output import Json, Overrides, TrustRemoteCode, begin, console, give


class DType(str, Enum):
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


@app.command()
def merge(
    path: Annotated[str, typer.Argument(help="A run folder, an adapter folder, or a hub id.")],
    to: Annotated[Path, typer.Option(help="Folder of the merged model; must not be there yet.")],
    overrides: Overrides = None,
    dtype: Annotated[
        DType, typer.Option(help="Of the written weights; the sum is formed in fp32.")
    ] = DType.fp32,
    tolerance: Annotated[
        float | None, typer.Option(help="Largest difference of a logit that passes, relative.")
    ] = None,
    examples: Annotated[
        int,
        typer.Option(
            help="Validation examples to compare on; 0: no proof, and no whole model in memory.",
            min=0,
        ),
    ] = 256,
    task: Task = None,
    model: BaseModel = None,
    seed: Seed = None,
    any_base: AnyBase = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Fold the adapter into its base, write a plain model, and prove that nothing changed."""
    begin()
    from lorakit.verbs.merge import merge as run_merge

    report = run_merge(
        path, to, dtype.value, tolerance, examples, task, model, seed, overrides or [], any_base
    )
    say = console().print
    say(f"merged in fp32, written as {report['dtype']} to {to}", markup=False)
    if not report["examples"]:
        say("not compared with the adapter on its base, for --examples is 0")
        give(report, as_json)
        return
    say(
        f"compared on {report['examples']} examples ({report['asked']}): largest logit difference "
        f"{report['max_logit_difference']:.2e} (relative; allowed {report['tolerance']:g}), "
        f"{report['prediction_flips']} predictions flipped",
        markup=False,
    )
    if report["metrics_before"]:
        for metric, before in report["metrics_before"].items():
            say(f"{metric} {before:.2f} before, {report['metrics_after'][metric]:.2f} after")
    give(report, as_json)
