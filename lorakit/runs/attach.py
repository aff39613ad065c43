"""Attach: the method of a recipe on a model, and the counts of what it trains."""

from __future__ import annotations

from lorakit.bases.base import Base
from lorakit.batches import refuse_too_long
from lorakit.errors import ModelError, RecipeError
from lorakit.methods import Attachment
from lorakit.nn.freeze import count
from lorakit.nn.linear import numbers_in
from lorakit.recipe.schema import Recipe
from lorakit.runs.result import Counts
from lorakit.runs.sources import read_sources, take_sources


def attach(recipe: Recipe, base: Base) -> Attachment:
    """The recipe's method on the model.

    RecipeError: `expect` has other counts. ModelError: the method could never be merged, or there
    is no room for its tokens.
    """
    method = recipe.method
    sources = read_sources(method, base.model, base.roles)
    attachment = method.attach(base.model, base.roles, base.newly_initialised | base.head)
    take_sources(attachment, sources)
    if method.added_tokens:
        refuse_too_long(recipe.data, None, base.config, method.added_tokens)
        if recipe.data.packing:
            raise ModelError(
                f"data.packing: {method.name} puts tokens before every prompt; leave packing out"
            )
    # Otherwise the proof of merging would fail after all the training.
    if method.merges and (why := attachment.why_unmergeable()):
        raise ModelError(why)
    _refuse_other_counts(recipe, attachment)
    return attachment


def _refuse_other_counts(recipe: Recipe, attachment: Attachment) -> None:
    counts = counts_of(attachment)
    for what in ("sites", "trainable"):
        wanted = getattr(recipe.expect, what)
        found = getattr(counts, what)
        if wanted is not None and wanted != found:
            sites = ", ".join(site.name for site in attachment.sites[:4])
            raise RecipeError(
                f"expect.{what} is {wanted}, and the method gives {found} (sites: "
                f"{sites or 'none'} ...). Correct method.targets or method.r, or remove the "
                f"expectation with `~expect.{what}`."
            )


def counts_of(attachment: Attachment) -> Counts:
    """As the paper counts: newly initialised parameters are not among `trainable`."""
    trained = attachment.trained()
    newly_initialised = sum(
        p.numel() for name, p in trained.items() if name in attachment.newly_initialised
    )
    model = attachment.model
    deltas = {name for name, _ in model.named_parameters() if ".delta." in name}
    return Counts(
        sites=len(attachment.sites),
        trainable=sum(p.numel() for p in trained.values()) - newly_initialised,
        fresh=newly_initialised,
        total=sum(numbers_in(p) for p in model.parameters()) - count(model, deltas),
    )
