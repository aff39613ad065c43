"""`lorakit check`"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from lorakit.cli import app
from lorakit.cli.options import Json, RecipeOptions, TrustRemoteCode, grouped
from lorakit.cli.output import give, rows_text, say, warn

if TYPE_CHECKING:
    from lorakit.recipe.load import LoadedRecipe
    from lorakit.verbs.check import Checked


@app.command(epilog="Example: lorakit check glue_mrpc method.r=16")
@grouped
def check(
    *,
    processes: Annotated[
        int, Option(help="Number of processes that share a batch.", min=1, metavar="N")
    ] = 1,
    given: RecipeOptions,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Check a recipe without training: sites, steps, memory.

    It also prints one example as the model reads it, with the trained tokens
    marked. The weights do not have to be on this machine.
    """
    loaded = given.load()
    from lorakit.verbs.check import check as run_check

    found = run_check(loaded.recipe, processes)
    _print(loaded, found)
    give(_plain(found), as_json)


def _print(loaded: LoadedRecipe, found: Checked) -> None:
    from lorakit.cli.progress import show_model
    from lorakit.verbs.model_view import model_view

    for note in loaded.notes:
        say(f"note: {note}")
    show_model(model_view(found.attachment, found.head))
    if found.rows:
        say(rows_text(found.rows))
    if found.steps is not None and found.shares is not None:
        say(
            f"steps: {found.steps:,}, of which {found.warmup_steps:,} warm up; a step is "
            f"{loaded.recipe.train.global_batch_size} examples = "
            f"{found.shares.processes} process(es) x {found.shares.micro} x "
            f"{found.shares.accumulation} accumulated"
        )
    _print_sample(found)
    say("memory of a training step, about:")
    for name, mib in found.memory_mib.items():
        say(f"  {name:<15} {mib:>11,.1f} MiB")
    say(f"an adapter on disk: {found.adapter_mib:,.1f} MiB")
    for text in found.missing:
        warn(text, "not checked:")


def _print_sample(found: Checked) -> None:
    from lorakit.cli.screen import line

    if not found.sample:
        return
    shown = []
    for text, trained in found.sample:
        shown.append((text.replace("\n", "\\n"), "bold green" if trained else ""))
    marked = any(trained for _, trained in found.sample)
    title = "one example (green is trained): " if marked else "one example: "
    say(line(title, *shown))
    if found.cut:
        say(f"{found.cut} training examples reach data.max_length and may be cut")


def _plain(found: Checked) -> dict[str, Any]:
    names = ("rows", "steps", "warmup_steps", "memory_mib", "adapter_mib")
    return {
        "sites": [site.name for site in found.attachment.sites],
        "counts": found.counts.model_dump(),
        "head": asdict(found.head) if found.head else None,
        **{name: getattr(found, name) for name in names},
        "not_looked_at": found.missing,
        "sample": [{"token": text, "trained": trained} for text, trained in found.sample],
    }
