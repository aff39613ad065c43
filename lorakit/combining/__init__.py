"""Combining: how the changes of several adapters of one base become one, one file per rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorakit.registry import Registry

if TYPE_CHECKING:
    # the command line lists the rules, and does not wait for pydantic
    from lorakit.combining._base import Rule

rules: Registry[type[Rule]] = Registry("lorakit.combining", "combination rule")

__all__ = ["rules"]
