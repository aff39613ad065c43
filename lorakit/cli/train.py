"""`lorakit train`"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorakit.cli import app
from lorakit.cli.launch import Strategy, launch, visible_gpus
from lorakit.cli.output import (
    Json,
    Overrides,
    RecipeName,
    Runs,
    TrustRemoteCode,
    begin,
    console,
    give,
)
from lorakit.errors import InputError

if TYPE_CHECKING:
    from lorakit.recipe.load import Loaded


@app.command()
def train(
    recipe: RecipeName,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    processes: Annotated[
        int | None,
        typer.Option(
            help="Processes to train with; by default one per visible GPU, or one.", min=1
        ),
    ] = None,
    strategy: Annotated[
        Strategy,
        typer.Option(
            help="What processes share: gradients (ddp), or also model and optimizer in parts."
        ),
    ] = Strategy.ddp,
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave GPUs alone.")] = False,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Train again where a run of this recipe is there already."),
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Train a recipe: inject, train, score, save, prove."""
    from lorakit.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    if cpu:
        os.environ["LORAKIT_CPU"] = "1"
    wanted = processes or (1 if cpu else visible_gpus())
    if wanted > 1 and "WORLD_SIZE" not in os.environ:
        _prepare(loaded, recipe)
        raise typer.Exit(launch(wanted, cpu or not visible_gpus(), strategy))
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and "LORAKIT_PREPARED" not in os.environ:
        _prepare(
            loaded, recipe
        )  # started by another's hand: the first on each machine does, the others wait
    with redirect_stdout(
        sys.stderr
    ):  # DeepSpeed logs to what is stdout when it is imported, used or not
        begin()

        from lorakit.cli.progress import Progress
        from lorakit.cli.screen import line
        from lorakit.report.table import score_table
        from lorakit.runs.result import failed_checks, summary
        from lorakit.verbs.train import early_stops, train_recipe

    for note in loaded.notes:
        console().print(f"note: {note}")
    progress = Progress()
    try:
        with redirect_stdout(sys.stderr):
            folder, result = train_recipe(loaded, runs, progress, restart)
    except InputError as error:
        from lorakit.verbs.prepare import explained

        raise explained(loaded.recipe, recipe, error) from error
    finally:
        progress.close()
    console().print(score_table(result).plain(), markup=False)
    for note in early_stops(result.seeds, loaded.recipe.evaluate.patience):
        console().print(f"note: {note}")
    failed = failed_checks(result)
    for seed, check in failed:
        found = "" if check.value is None else f"{check.value} against {check.tolerance}; "
        said = f" seed {seed}, {check.name}: {found}{check.note}"
        console().print(line(("check failed", "red"), said))
    if not failed:
        merges = any(check.name == "merge" for check in result.seeds[0].checks)
        then = (
            f", when it was trained ({progress.finished_before})"
            if progress.finished_before
            else ""
        )
        proofs = "is alive, reloads to the same logits, and merges to the same logits"
        if not merges:
            proofs = "is alive, and reloads to the same logits"
        console().print(f"checks passed{then}: what was trained {proofs}", markup=False)
    adapter = folder / f"seed{result.seeds[0].seed}" / "adapter"
    console().print(
        f"run: {folder}   page: {folder / 'report.html'}   adapter: {adapter}", soft_wrap=True
    )
    give(
        {
            "run": str(folder),
            "scores": {f"{row.split}/{row.metric}": row.mean for row in summary(result)},
            "base_scores": {f"{row.split}/{row.metric}": row.base_mean for row in summary(result)},
            "seeds": {str(s.seed): s.scores for s in result.seeds},
            "trainable_parameters": result.counts.trainable,
            "fresh_parameters": result.counts.fresh,
            "seconds": sum(s.seconds["whole"] for s in result.seeds),
            "checks_passed": not failed,
        },
        as_json,
    )
    if failed:
        raise typer.Exit(1)


def _prepare(loaded: Loaded, name: str) -> None:
    """Read and tokenise before the processes meet: waiting for one another, they would run out of time."""
    begin(models=False)
    logging.getLogger("lorakit").setLevel(logging.ERROR)  # what there is to say, the training says
    from lorakit.verbs.prepare import explained, tokenise

    try:
        tokenise(loaded.recipe)
    except InputError as error:
        raise explained(loaded.recipe, name, error) from error
    os.environ["LORAKIT_PREPARED"] = "1"
