"""A run with a metric that cannot be computed: refused if the metric chooses the state that is kept, else recorded as a
failed check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from lorakit.errors import InputError
from lorakit.evaluation.answers import Scores
from lorakit.runs.result import Check
from lorakit.tasks import Task


def refuse_missing_metric(task: Task, scores: Scores) -> None:
    """InputError: the metric that selects the best state cannot be computed here, so no state could be chosen."""
    split = task.eval_splits[0]
    if task.primary not in scores.get(split, {task.primary: 0.0}):
        raise InputError(
            f"{task.name} selects the best state by {task.primary}, which is not available on this machine (the other "
            f"metrics: {', '.join(scores[split]) or 'none'}). Install what it needs, or name another metric first."
        )


def of_the_first(scores: Scores, watched: tuple[str, str], accelerator: Accelerator) -> Scores:
    """With the watched score of the first process: a metric may have failed in one alone, and all keep one state."""
    split, metric = watched
    if accelerator.num_processes == 1 or metric not in scores[split]:
        return scores
    value: Any = torch.tensor(scores[split][metric], dtype=torch.float64, device=accelerator.device)
    agreed: Any = broadcast(value)
    return {**scores, split: {**scores[split], metric: float(agreed)}}


def not_computed(failed: Mapping[str, str]) -> list[Check]:
    """A run without a metric that it should have is whole, and says so."""
    again = "; `lorakit score` tries again with what is in predictions/"
    return [
        Check(name=f"metric {name}", passed=False, note=why + again) for name, why in failed.items()
    ]
