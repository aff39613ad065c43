"""The Accelerator of a recipe: its device, its processes and its precision."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs
from torch.distributed import is_initialized

from lorakit.errors import RecipeError
from lorakit.recipe.schema import Recipe
from lorakit.runs.precision import on_cpu, precision_of, refuse_precision
from lorakit.training.processes import check_strategy, on_cpus, refuse_parts

COLLECTIVE_TIMEOUT_S = 4 * 3600
"""How long processes wait for one another. The main process alone proves a seed, which can take
longer than torch's ten minutes for a large model."""


def make_accelerator(recipe: Recipe) -> Accelerator:
    """For a recipe from `resolve_precision`. RecipeError: this machine does not have its precision,
    or a strategy that lorakit or the method does not support."""
    refuse_precision(recipe)
    precision = precision_of(recipe)
    try:
        accelerator = _accelerator(
            mixed_precision=precision,
            cpu=on_cpus(on_cpu()),
            kwargs_handlers=[
                InitProcessGroupKwargs(timeout=timedelta(seconds=COLLECTIVE_TIMEOUT_S))
            ],
        )
    except ValueError as error:
        raise RecipeError(
            f"train.precision {recipe.train.precision} is not available on this machine: {error}"
        ) from error
    check_strategy(accelerator, precision, recipe.train)
    # here too, before the base is loaded
    refuse_parts(recipe.method, accelerator)
    return accelerator


def _accelerator(**wanted: Any) -> Accelerator:
    try:
        return Accelerator(**wanted)
    except ValueError:
        # accelerate refuses a precision other than that of the process's first Accelerator, and has
        # no public way to change it.
        AcceleratorState._reset_state(reset_partial_state=not is_initialized())
        return Accelerator(**wanted)
