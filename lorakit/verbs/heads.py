"""The head of a run before it is trained: where its numbers come from, and its labels."""

from __future__ import annotations

import logging
from collections.abc import Collection

from lorakit.bases.base import Base
from lorakit.bases.config import read_config
from lorakit.errors import ModelError
from lorakit.events import HeadPart, HeadView
from lorakit.methods import Attachment
from lorakit.nn.freeze import count
from lorakit.nn.tokens import END
from lorakit.recipe.schema import Recipe
from lorakit.runs.labels import in_order_of, is_classifier, names_of
from lorakit.tasks import Head

log = logging.getLogger(__name__)

NEW = "newly initialised"
KEPT = "the checkpoint's"
CARRIED = "the adapter's"


def head_view(
    recipe: Recipe, base: Base, attachment: Attachment, not_filled: Collection[str] | None = None
) -> HeadView | None:
    """None for a causal model. not_filled: parameters that the adapter of `start_from` does not
    have."""
    if recipe.task.head is Head.CAUSAL:
        return None
    parts: dict[str, HeadPart] = {}
    for name in sorted(name for name in attachment.newly_initialised if not name.endswith(END)):
        start = KEPT if name in base.head else NEW
        if not_filled is not None and name not in not_filled:
            start = CARRIED
        module = name.rpartition(".")[0]
        before = parts[module].parameters if module in parts else 0
        parts[module] = HeadPart(module, start, before + count(base.model, {name}))
    stored, problem = _stored(recipe)
    return HeadView(tuple(parts.values()), tuple(recipe.task.labels), stored, problem)


def _stored(recipe: Recipe) -> tuple[tuple[str, ...], str | None]:
    """The labels and the `problem_type` of the checkpoint's own head."""
    try:
        config = read_config(recipe.model)
    except ModelError:  # `check` may work from the recipe's shapes alone
        return (), None
    if not is_classifier(config):
        return (), None
    return tuple(names_of(config)), getattr(config, "problem_type", None)


def warn_other_order(view: HeadView | None) -> None:
    """Warn where training starts from a head that has the same labels in another order, which is
    worse than a newly initialised one."""
    if view is None or not any(part.starts == KEPT for part in view.parts):
        return
    order = in_order_of(view.stored, view.labels)
    if order is not None and tuple(order) != view.labels:
        log.warning(
            "the checkpoint's head has the labels %s in this order, and the task %s: to start from "
            "the head as it is, give 'task.classes=[%s]'",
            ", ".join(view.stored),
            ", ".join(view.labels),
            ", ".join(order),
        )
