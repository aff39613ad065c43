"""`lorakit check`"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from lorakit.cli import app
from lorakit.cli.output import (
    Json,
    Overrides,
    RecipeName,
    TrustRemoteCode,
    begin,
    console,
    give,
    warn,
)


@app.command()
def check(
    recipe: RecipeName,
    overrides: Overrides = None,
    processes: Annotated[
        int, typer.Option(help="Processes that the batch is shared by.", min=1)
    ] = 1,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """All but train: sites, counts, steps, one decoded example with the trained tokens marked, memory."""
    from lorakit.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    begin()
    from lorakit.cli.progress import show_model
    from lorakit.cli.screen import line
    from lorakit.verbs.check import check as run_check
    from lorakit.verbs.model_view import model_view

    found = run_check(loaded.recipe, processes)
    out = console()
    for note in loaded.notes:
        out.print(f"note: {note}", markup=False)
    show_model(model_view(found.attachment, found.head))
    if found.rows:
        out.print("rows: " + ", ".join(f"{split} {rows:,}" for split, rows in found.rows.items()))
    if found.steps is not None and found.shares is not None:
        out.print(
            f"steps: {found.steps:,}, of which {found.warmup_steps:,} warm up; a step is "
            f"{loaded.recipe.train.global_batch_size} examples = {found.shares.processes} process(es) x "
            f"{found.shares.micro} x {found.shares.accumulation} accumulated"
        )
    if found.sample:
        shown = [
            (token.replace("\n", "\\n") + " ", "bold green" if trained else "")
            for token, trained in found.sample
        ]
        out.print(
            "one example" + (" (green is trained):" if any(t for _, t in found.sample) else ":"),
            end=" ",
        )
        out.print(line(*shown))
        if found.cut:
            out.print(f"{found.cut} training examples reach data.max_length and may be cut")
    out.print(
        "memory, about: "
        + ", ".join(f"{name} {mib:,.0f} MiB" for name, mib in found.memory_mib.items())
    )
    out.print(f"an adapter on disk: {found.adapter_mib:,.1f} MiB")
    for text in found.missing:
        warn(text, "not looked at:")
    give(
        {
            "sites": [site.name for site in found.attachment.sites],
            "counts": found.counts.model_dump(),
            "head": asdict(found.head) if found.head else None,
            "rows": found.rows,
            "steps": found.steps,
            "warmup_steps": found.warmup_steps,
            "memory_mib": found.memory_mib,
            "adapter_mib": found.adapter_mib,
            "not_looked_at": found.missing,
            "sample": [{"token": token, "trained": trained} for token, trained in found.sample],
        },
        as_json,
    )
