"""`lorakit prepare`"""

from __future__ import annotations

from dataclasses import asdict

from lorakit.cli import app
from lorakit.cli.options import Json, RecipeOptions, TrustRemoteCode, grouped
from lorakit.cli.output import give, rows_text, say, warn


@app.command(epilog="Example: lorakit prepare glue_mrpc")
@grouped
def prepare(
    *, given: RecipeOptions, trust_remote_code: TrustRemoteCode = False, as_json: Json = False
) -> None:
    """Download a recipe's model and data, and tokenise them.

    Afterwards, the recipe can be trained without a network.
    """
    from lorakit.batches.token_cache import cache_folder
    from lorakit.shell import join
    from lorakit.verbs.prepare import prepare as run_prepare

    recipe = given.load().recipe
    words = join(given.words)
    found = run_prepare(recipe, words)
    say(f"base model: {recipe.model.name} ({', '.join(found.weights)})")
    say(rows_text(found.rows))
    say(f"tokens: {cache_folder()}")
    for line in found.optional:
        warn(line, "left out:")
    say(f"everything is available: HF_HUB_OFFLINE=1 lorakit train {words}")
    result = asdict(found) | {"cache": str(cache_folder())}
    del result["missing"]
    give(result, as_json)
