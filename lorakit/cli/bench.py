"""`lorakit bench`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lorakit.cli import app
from lorakit.cli.output import Json, Overrides, RecipeName, begin, console, give
from lorakit.cli.report import Format
from lorakit.cli.visible import show
from lorakit.errors import InputError

if TYPE_CHECKING:
    from lorakit.bench import Measured


@app.command()
def bench(
    what: Annotated[
        str, typer.Argument(help="step, loss, ...: one of the questions.", metavar="WHAT")
    ],
    recipe: RecipeName,
    overrides: Overrides = None,
    against: Annotated[
        str, typer.Option(help="Peers, with commas between; `none` for none; `all` for all.")
    ] = "all",
    rounds: Annotated[
        int, typer.Option(help="Rounds that count; each times every way once.", min=2)
    ] = 7,
    layers: Annotated[
        int | None, typer.Option(help="Of the recipe's shape; all, if not given.", min=1)
    ] = None,
    batch: Annotated[int, typer.Option(help="Examples in a batch.", min=1)] = 16,
    length: Annotated[int, typer.Option(help="Tokens of an example.", min=2)] = 128,
    precision: Annotated[
        Literal["fp32", "bf16"], typer.Option(help="Of the frozen weights.")
    ] = "fp32",
    dropout: Annotated[
        float, typer.Option(help="Of the model and of the adapter.", min=0, max=0.5)
    ] = 0.0,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; torch's own choice, if not given.", min=1)
    ] = None,
    shapes: Annotated[
        str, typer.Option(help="Of `latency`: BATCHxLENGTH,... or table1 or figure5.")
    ] = "",
    bottlenecks: Annotated[
        str, typer.Option(help="Of `latency`: widths of the adapter layers, with commas.")
    ] = "",
    form: Annotated[
        Format, typer.Option("--format", help="How a table is written.")
    ] = Format.plain,
    picture: Annotated[
        Path | None, typer.Option(help="Where a picture goes, as SVG.", metavar="FILE")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure: ratios of time beside the limit and beside peers, in one process and in turns."""
    from lorakit.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    begin()
    import torch

    from lorakit.bench import Setting, benches

    if threads:
        torch.set_num_threads(threads)
    chosen = benches.get(what)
    named = tuple(name.strip() for name in against.split(","))
    peers = {"none": (), "all": chosen.peers}.get(against, named)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    words = (recipe, *(overrides or []))
    setting = Setting(
        peers,
        rounds,
        layers,
        batch,
        length,
        precision,
        dropout,
        device,
        words,
        shapes,
        _widths(bottlenecks),
    )
    measured = chosen.checked(loaded.recipe, setting)
    _say(measured)
    if picture is not None:
        _draw(measured, picture, what)
    if not as_json:
        for table in measured.tables:
            show(getattr(table, form.value)(), end="\n\n")
    give({"what": what, "recipe": loaded.name, **setting.plain(), **measured.plain()}, as_json)
    if not all(check.passed for check in measured.checks):
        raise typer.Exit(1)


def _widths(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if wrong := [part for part in parts if not part.isdecimal() or not 0 < int(part) < 10**6]:
        raise InputError(
            f"--bottlenecks: {wrong[0]!r} is no width; whole numbers, with commas between"
        )
    return tuple(dict.fromkeys(map(int, parts)))


def _say(measured: Measured) -> None:
    for ratio in measured.ratios:
        spread = f"[{ratio.low:.3f}, {ratio.high:.3f}] over {ratio.rounds} rounds"
        console().print(f"{ratio.of} / {ratio.over}: {ratio.median:.3f} {spread}", markup=False)
    for name, count in () if measured.tables else measured.bytes.items():
        console().print(f"{name}: {count / 2**20:,.1f} MiB", markup=False)
    for note in measured.notes:
        console().print(note, markup=False)
    for check in measured.checks:
        value = "" if check.value is None else f" {check.value:.3f}"
        console().print(
            f"{'passed' if check.passed else 'FAILED'}: {check.name}{value} ({check.note})",
            markup=False,
        )


def _draw(measured: Measured, file: Path, what: str) -> None:
    from lorakit.runs.result import write_whole

    if measured.picture is None:
        raise InputError(f"bench {what} has no picture")
    write_whole(file, measured.picture.document)
    console().print(f"picture: {file}", markup=False)
