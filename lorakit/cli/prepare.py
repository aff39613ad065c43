"""`lorakit prepare`"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from lorakit.cli import app
from lorakit.cli.options import Json, RecipeOptions, TrustRemoteCode, grouped
from lorakit.cli.output import give, say, warn

if TYPE_CHECKING:
    from lorakit.verbs.data_report import SplitReport

BAR_CHARACTERS = 40


@app.command(epilog="Example: lorakit prepare glue_mrpc")
@grouped
def prepare(
    *, given: RecipeOptions, trust_remote_code: TrustRemoteCode = False, as_json: Json = False
) -> None:
    """Download a recipe's model and data, and tokenise them.

    Afterwards, the recipe can be trained without a network. For each split it
    prints the lengths of the examples, how many are cut or left out, and how
    many repeat.
    """
    from lorakit.batches.token_cache import KIND
    from lorakit.files.kept_arrays import cache_folder
    from lorakit.shell import join
    from lorakit.verbs.prepare import prepare as run_prepare

    recipe = given.load().recipe
    words = join(given.words)
    found = run_prepare(recipe, words)
    say(f"base model: {recipe.model.name} ({', '.join(found.weights)})")
    for split, about in found.splits.items():
        _print_split(split, about, recipe.data.max_length)
    say(f"tokens: {cache_folder(KIND)}")
    for line in found.optional:
        warn(line, "left out:")
    say(f"everything is available: HF_HUB_OFFLINE=1 lorakit train {words}")
    result = asdict(found) | {"cache": str(cache_folder(KIND))}
    del result["missing"], result["dropped"]
    give(result, as_json)


def _print_split(split: str, about: SplitReport, max_length: int) -> None:
    """What is in a split, with a histogram of its lengths."""
    say(
        f"{split}: {about.examples:,} examples of {about.shortest:,} to {about.longest:,} tokens, "
        f"half of them up to {about.median:,}"
    )
    most = max(bin.examples for bin in about.histogram)
    for bin in about.histogram:
        bar = "#" * math.ceil(BAR_CHARACTERS * bin.examples / most)
        say(f"  {bin.above + 1:>7,} to {bin.most:<7,} {bin.examples:>9,} {bar}")
    counts = {
        f"longer than data.max_length {max_length}, and cut": about.cut,
        **{f"dropped: {cause}": count for cause, count in about.dropped.items()},
        "equal to an earlier example": about.repeated,
        "asked in the training split, too": about.in_training,
    }
    for what, count in counts.items():
        if count:
            say(f"  {count:,} {what}")
    if about.labels:
        say("  labels: " + ", ".join(f"{name} {count:,}" for name, count in about.labels.items()))
