"""Analyses of what training did to the weights: one file for each question.

A file holds the measure (a pure function of tensors, with its formula and source), the table, the
picture, and the runs that it reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorakit.registry import Registry

if TYPE_CHECKING:
    # `lorakit --help` lists the names, and needs no torch for that
    from lorakit.analysis._base import Analysis

analyses: Registry[Analysis] = Registry("lorakit.analysis", "analysis")

__all__ = ["analyses"]
