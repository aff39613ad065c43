"""A metric that cannot be computed: the run is refused if that metric selects the best state, and
otherwise has a failed check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from lorakit.errors import InputError, RecipeError, did_you_mean
from lorakit.evaluation.answers import Scores
from lorakit.recipe.schema import Recipe
from lorakit.runs.result import Check


def refuse_missing_metric(recipe: Recipe, scores: Scores) -> None:
    """InputError: the metric that selects the best state is not among the scores."""
    if recipe.watched is None:
        return
    split, metric = recipe.watched
    if split not in scores or metric in scores[split]:
        return
    others = ", ".join(scores[split]) or "none"
    if recipe.evaluate.metric is not None:
        near = did_you_mean(metric, scores[split])
        raise RecipeError(
            f"evaluate.metric {metric!r} is not a score of {recipe.task.name}{near} (on {split} it "
            f"has: {others})"
        )
    raise InputError(
        f"{recipe.task.name} selects the best state by {metric}, which is not available on this "
        f"machine (the other metrics: {others}). Install what it needs, or name another metric "
        "first."
    )


def of_the_first(
    scores: Scores, watched: tuple[str, str] | None, accelerator: Accelerator
) -> Scores:
    """The scores with the first process's value of the watched (split, metric), if there is one.

    A metric may fail in one process alone, and all must keep the same state.
    """
    if watched is None:
        return scores
    split, metric = watched
    if accelerator.num_processes == 1 or metric not in scores[split]:
        return scores
    value: Any = torch.tensor(scores[split][metric], dtype=torch.float64, device=accelerator.device)
    agreed: Any = broadcast(value)
    return {**scores, split: {**scores[split], metric: float(agreed)}}


def not_computed(failed: Mapping[str, str]) -> list[Check]:
    """A failed check for each metric -> reason: the run is complete without them, and says so."""
    again = "; `lorakit score` tries again with what is in predictions/"
    return [
        Check(name=f"metric {name}", passed=False, note=why + again) for name, why in failed.items()
    ]
