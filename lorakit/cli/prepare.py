"""`lorakit prepare`"""

from __future__ import annotations

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
def prepare(
    recipe: RecipeName,
    overrides: Overrides = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Fetch a recipe's model and data and tokenise the examples, once; afterwards it trains without network."""
    from lorakit.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    begin()
    from lorakit.batches.token_cache import cache_folder
    from lorakit.shell import join
    from lorakit.verbs.prepare import prepare as run_prepare

    found = run_prepare(loaded.recipe, join([recipe, *(overrides or [])]))
    out = console()
    out.print(f"base model: {loaded.recipe.model.name} ({', '.join(found.weights)})", markup=False)
    out.print("rows: " + ", ".join(f"{split} {rows:,}" for split, rows in found.rows.items()))
    out.print(f"tokens: {cache_folder()}", markup=False)
    for line in found.optional:
        warn(line, "left out:")
    out.print(
        "all is at hand: HF_HUB_OFFLINE=1 lorakit train " + join([recipe, *(overrides or [])]),
        markup=False,
    )
    give(
        {
            "rows": found.rows,
            "weights": found.weights,
            "optional": found.optional,
            "cache": str(cache_folder()),
        },
        as_json,
    )
