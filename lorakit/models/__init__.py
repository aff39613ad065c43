"""Where things live in an architecture: one file per family, as data."""

from __future__ import annotations

from lorakit.models._base import Family, Fused, Model
from lorakit.models._trust import trust_remote_code
from lorakit.registry import Registry

families: Registry[Family] = Registry("lorakit.models", "family")


def family_of(model_type: str) -> Family | None:
    """The family that knows `config.model_type`, or None: such a model is adapted by module names."""
    for name in families.names():
        if model_type in families.get(name).model_types:
            return families.get(name)
    return None


__all__ = ["Family", "Fused", "Model", "families", "family_of", "trust_remote_code"]
