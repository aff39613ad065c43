"""A method or a saved adapter on a model that knows its roles and its newly initialised head."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from lorakit.adapters.attach import attach_adapter
from lorakit.adapters.files import AdapterFile, read_adapter


class Model(Protocol):
    """A tiny model of `tests/conftest.py`, or a base as lorakit loads it."""

    model: Any
    roles: Any
    newly_initialised: frozenset[str]


def attach(method: Any, model: Model) -> Any:
    return method.attach(model.model, model.roles, model.newly_initialised)


def attach_saved(saved: Path | AdapterFile, model: Model, **options: Any) -> Any:
    """options: those of `attach_adapter`."""
    file = read_adapter(saved) if isinstance(saved, Path) else saved
    return attach_adapter(file, model.model, model.roles, model.newly_initialised, **options)
