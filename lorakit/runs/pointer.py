"""Pointer: which trained model a command works on, and how that model is opened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pointer:
    """The request that `eval`, `generate`, `merge` and `analyze` have in common."""

    path: str
    """A run folder, the folder of one seed, an adapter folder, a hub id, or a merged model."""
    task: str | None = None
    """Needed where the adapter or model does not record its task, such as `glue/mrpc`."""
    base: str | None = None
    """Another base model than the recorded one: a folder or a hub id."""
    seed: int | None = None
    """One seed of a run; None takes the only seed or the best-scored one."""
    overrides: tuple[str, ...] = ()
    """`key=value` or `~key`, as for a recipe."""
    any_base: bool = False
    """Skip the check that the base has the weights that the adapter was trained on."""
