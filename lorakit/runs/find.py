"""Finding the run of a recipe: the folder that its name gives, or one that an older version named.

The name has a digest of the values that were set. Versions up to 0.1.0 took the digest of all
values, so that each new key of the schema changed it. Such a run is found by its recorded recipe.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from lorakit.recipe.load import LoadedRecipe
from lorakit.recipe.schema import Recipe
from lorakit.runs.folder import begun, folder_of, runs_named, stem_of
from lorakit.runs.identity import what_matters
from lorakit.runs.same import recorded_recipe


def run_of(loaded: LoadedRecipe, runs: Path) -> Path:
    """The run folder of a recipe: the one in which it was trained, else the one that it would get.

    Several folders with the same recipe: a finished one, then the newest.
    """
    own = folder_of(loaded, runs)
    # what is in the folder of that name is compared with the recipe by `same_recipe`
    if begun(own) or (own / "result.json").is_file():
        return own
    wanted = what_matters(loaded.recipe.plain())
    others = [run for run in runs_named(runs, stem_of(own)) if run != own and begun(run)]
    ranked = [
        ((run / "result.json").is_file(), (run / "recipe.yaml").stat().st_mtime, run)
        for run in others
        if _recorded(run) == wanted or _without_labels(run, loaded.recipe) == wanted
    ]
    return max(ranked, default=(False, 0.0, own))[2]


def _without_labels(run: Path, recipe: Recipe) -> dict[str, Any] | None:
    """As recorded, without the labels, which a run takes from its data where none are set."""
    recorded = _recorded(run)
    if recorded is None or "classes" in recipe.plain()["task"]:
        return recorded
    task = {key: value for key, value in recorded["task"].items() if key != "classes"}
    return {**recorded, "task": task}


def _recorded(run: Path) -> dict[str, Any] | None:
    file = run / "recipe.yaml"
    if not file.is_file():
        return None
    return _read(run, file.stat().st_mtime_ns)


# a study looks for each of its cells among all runs of the same recipe
@lru_cache(maxsize=4096)
def _read(run: Path, changed: int) -> dict[str, Any] | None:
    recorded = recorded_recipe(run)
    return None if recorded is None else what_matters(recorded.plain())
