"""What a head starts as and which labels it has, to be said before it is trained."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass

from lorakit.bases.base import Base
from lorakit.bases.config import read_config
from lorakit.errors import ModelError
from lorakit.methods import Attachment
from lorakit.nn.freeze import count
from lorakit.nn.tokens import END
from lorakit.recipe.schema import Recipe
from lorakit.runs.labels import in_order_of, is_classifier, names_of
from lorakit.tasks import Head

log = logging.getLogger(__name__)

NEW, KEPT, CARRIED = "newly initialised", "the checkpoint's", "the adapter's"


@dataclass(frozen=True)
class Part:
    """One module of a head, all of which is trained. starts: what its numbers are before that."""

    name: str
    starts: str
    parameters: int


@dataclass(frozen=True)
class HeadView:
    """The head of a run. labels: of the task, in the order of the outputs; stored: of the
    checkpoint's own head, as far as it has one and names them; problem: what that one was made for,
    where the checkpoint says it."""

    parts: tuple[Part, ...]
    labels: tuple[str, ...]
    stored: tuple[str, ...]
    problem: str | None


def head_view(
    recipe: Recipe, base: Base, attachment: Attachment, renewed: Collection[str] | None = None
) -> HeadView | None:
    """None for a causal model. renewed: after `start_from`, what it did not fill."""
    if recipe.task.head is Head.CAUSAL:
        return None
    starts: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for name in sorted(name for name in attachment.newly_initialised if not name.endswith(END)):
        module = name.rpartition(".")[0]
        own = KEPT if name in base.head else NEW
        starts[module] = own if renewed is None or name in renewed else CARRIED
        sizes[module] = sizes.get(module, 0) + count(base.model, {name})
    parts = tuple(Part(module, start, sizes[module]) for module, start in starts.items())
    return HeadView(parts, tuple(recipe.task.labels), *_stored(recipe))


def _stored(recipe: Recipe) -> tuple[tuple[str, ...], str | None]:
    try:
        config = read_config(recipe.model)
    except ModelError:  # `check` works from shapes alone
        return (), None
    if not is_classifier(config):
        return (), None
    return tuple(names_of(config)), getattr(config, "problem_type", None)


def warn_other_order(view: HeadView | None) -> None:
    """Training starts from a head with the same labels in another order: it is worse than none."""
    if view is None or not any(part.starts == KEPT for part in view.parts):
        return
    order = in_order_of(view.stored, view.labels)
    if order is not None and tuple(order) != view.labels:
        then, now, advice = (", ".join(names) for names in (view.stored, view.labels, order))
        log.warning(
            "the checkpoint's head has the labels %s in this order, and the task %s: to start from "
            "it as it stands, give 'task.classes=[%s]'",
            then,
            now,
            advice,
        )
