"""`lorakit import`: a checkpoint of the paper's reference code becomes an adapter folder, as `lorakit train` writes it.

The recipe says what the file does not: the base, the task, the targets, and alpha.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorakit.adapters import loralib
from lorakit.adapters.checkpoint import read_checkpoint
from lorakit.adapters.save import save_adapter
from lorakit.bases.load import load
from lorakit.errors import AdapterError, InputError, RecipeError
from lorakit.methods.reparam.lora import LoRA, LoRAAttachment
from lorakit.recipe.load import load_recipe
from lorakit.runs.objects import attach, counts_of
from lorakit.runs.result import Counts
from lorakit.verbs.train.about import about

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Imported:
    folder: Path
    base: str
    task: str
    r: int
    alpha: float
    counts: Counts


def import_checkpoint(file: Path, recipe: str, to: Path, overrides: Sequence[str] = ()) -> Imported:
    """Write the adapter to `to`.

    InputError: `to` is in use. RecipeError: the recipe's method is not LoRA. AdapterError: the file is no checkpoint of
    loralib, or not of this recipe's base, rank, alpha or targets.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(
            f"{to} is there already and is not empty; choose another folder or remove it"
        )
    asked = load_recipe(recipe, overrides).recipe
    if not isinstance(asked.method, LoRA):
        raise RecipeError(
            f"{recipe} trains {asked.method.name}; what is imported is LoRA, so give a recipe of lora"
        )
    tensors = read_checkpoint(file)
    base = load(asked.model, asked.task.head.value, asked.task.labels)
    attachment = attach(asked, base)
    assert isinstance(attachment, LoRAAttachment)
    what = about(asked, base, attachment)
    own = {name: base.model.get_parameter(name).detach() for name in base.head}
    attachment.load_state(loralib.state_of(attachment, {**own, **tensors}))
    if dead := [name for name, norm in attachment.delta_norms().items() if not norm > 0]:
        raise AdapterError(
            f"{file}: B A is zero on {dead[0]} and {len(dead) - 1} more; it was saved before training"
        )
    if getattr(base.config, "share_att_key", False):
        log.warning(
            "the reference code's DeBERTa leaves dW out where W_q reads relative positions; transformers and PEFT put "
            "it there too, so scores may differ from the published ones"
        )
    save_adapter(to, attachment, what)
    base.tokenizer.save_pretrained(to)
    return Imported(
        to, base.name, asked.task.name, asked.method.r, asked.method.alpha, counts_of(attachment)
    )
