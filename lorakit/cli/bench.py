"""`lorakit bench`"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from lorakit.cli import app
from lorakit.cli.output import Json, Overrides, RecipeName, begin, console, give


@app.command()
def bench(
    what: Annotated[str, typer.Argument(help="step, loss, ...: one of the questions.", metavar="WHAT")],
    recipe: RecipeName,
    overrides: Overrides = None,
    against: Annotated[str, typer.Option(help="Peers, with commas between; `none` for none; `all` for all.")] = "all",
    rounds: Annotated[int, typer.Option(help="Rounds that count; each times every way once.", min=2)] = 7,
    layers: Annotated[int | None, typer.Option(help="Of the recipe's shape; all, if not given.", min=1)] = None,
    batch: Annotated[int, typer.Option(help="Examples in a batch.", min=1)] = 16,
    length: Annotated[int, typer.Option(help="Tokens of an example.", min=2)] = 128,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="Of the frozen weights.")] = "fp32",
    dropout: Annotated[float, typer.Option(help="Of the model and of the adapter.", min=0, max=0.5)] = 0.0,
    threads: Annotated[int | None, typer.Option(help="CPU threads; torch's own choice, if not given.", min=1)] = None,
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
    setting = Setting(peers, rounds, layers, batch, length, precision, dropout, device, (recipe, *(overrides or [])))
    measured = chosen.checked(loaded.recipe, setting)
    for ratio in measured.ratios:
        spread = f"[{ratio.low:.3f}, {ratio.high:.3f}] over {ratio.rounds} rounds"
        console().print(f"{ratio.of} / {ratio.over}: {ratio.median:.3f} {spread}", markup=False)
    for name, count in measured.bytes.items():
        console().print(f"{name}: {count / 2**20:,.1f} MiB", markup=False)
    for note in measured.notes:
        console().print(note, markup=False)
    give({"what": what, "recipe": loaded.name, **setting.plain(), **measured.plain()}, as_json)
