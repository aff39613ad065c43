"""`lorakit prepare`"""

from __future__ import annotations

from lorakit.cli import app
from lorakit.cli.options import Json, RecipeOptions, TrustRemoteCode, grouped
from lorakit.cli.output import begin, console, give, warn


@app.command(epilog="Example: lorakit prepare glue_mrpc")
@grouped
def prepare(
    *, given: RecipeOptions, trust_remote_code: TrustRemoteCode = False, as_json: Json = False
) -> None:
    """Download a recipe's model and data, and tokenise them.

    Afterwards the recipe trains without a network.
    """
    loaded = given.load()
    begin()
    from lorakit.batches.token_cache import cache_folder
    from lorakit.shell import join
    from lorakit.verbs.prepare import prepare as run_prepare

    found = run_prepare(loaded.recipe, join(given.words))
    say = console().print
    say(f"base model: {loaded.recipe.model.name} ({', '.join(found.weights)})")
    say("rows: " + ", ".join(f"{split} {rows:,}" for split, rows in found.rows.items()))
    say(f"tokens: {cache_folder()}")
    for line in found.optional:
        warn(line, "left out:")
    say(f"everything is available: HF_HUB_OFFLINE=1 lorakit train {join(given.words)}")
    give(
        {
            "rows": found.rows,
            "weights": found.weights,
            "optional": found.optional,
            "cache": str(cache_folder()),
        },
        as_json,
    )
