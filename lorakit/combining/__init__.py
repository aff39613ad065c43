"""Combining: how the changes of several adapters of one base become one, one file per rule."""

from __future__ import annotations

from lorakit.combining._base import FactorRule, MatrixRule, Rule
from lorakit.registry import Registry

rules: Registry[type[Rule]] = Registry("lorakit.combining", "combination rule")

__all__ = ["FactorRule", "MatrixRule", "Rule", "rules"]
