"""`lorakit eval`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from lorakit.cli import app
from lorakit.cli.options import Json, PointerOptions, grouped
from lorakit.cli.output import end_with, give, known, say

if TYPE_CHECKING:
    from lorakit.verbs.evaluate import Evaluated


@app.command("eval", epilog="Example: lorakit eval runs/my-run --split test")
@grouped
def evaluate(
    *,
    split: Annotated[
        list[str] | None,
        Option(help="Split to score; repeatable. Default: the evaluation splits.", metavar="NAME"),
    ] = None,
    out: Annotated[
        Path | None,
        Option(
            help="Folder for predictions. Default: eval/ in the seed's folder, else NAME-eval "
            "next to PATH.",
            metavar="DIR",
        ),
    ] = None,
    pointed: PointerOptions,
    as_json: Json = False,
) -> None:
    """Score an adapter or a merged model, and its base.

    The predictions are saved. An adapter that changes nothing is an error.
    """
    from lorakit.cli.progress import Progress
    from lorakit.verbs.evaluate import evaluate as run_evaluate

    found = run_evaluate(pointed.pointer(), split or (), out, Progress())
    _print(found)
    give(_plain(found), as_json)
    end_with(found.failed)


def _print(found: Evaluated) -> None:
    if found.why:
        say(f"{found.path}: {found.why}")
    for split, rows in found.rows.items():
        for metric, value in known(found.scores.get(split, {}), found.failed).items():
            say(f"{found.task} {split}  {metric} {value:.2f}{_base_score(found, split, metric)}")
        if cut := found.cut[split]:
            say(f"{found.task} {split}  {cut} of {rows} answers were cut at decode.max_new_tokens")
    if found.effect is not None:
        say(f"the adapter is on: it changes a logit by {found.effect:.3g} (relative)")
    say(f"written: {', '.join(map(str, found.files))}")


def _base_score(found: Evaluated, split: str, metric: str) -> str:
    base = found.base_scores.get(split, {}).get(metric)
    if base is None:
        return ""
    part = f", {found.slices[split]}" if split in found.slices else ""
    return f"   (adapter off{part}: {base:.2f})"


def _plain(found: Evaluated) -> dict[str, Any]:
    result = asdict(found) | {"files": [str(file) for file in found.files]}
    del result["why"]
    result["base_slices"] = result.pop("slices")
    result["adapter_effect"] = result.pop("effect")
    return result
