"""Reparametrisations: W0 + dW, one file per method. They can be merged into the base.

A method derives from `LowRank` (two small matrices), `Ranked` (with a trained A and B) or `Dense`
(any dW), and has its formulas as pure functions of a delta.
"""

from __future__ import annotations

from lorakit.methods._peft_form import PeftForm
from lorakit.methods.reparam._contract import Frozen, Reparam, Shape, Target
from lorakit.methods.reparam._lowrank import Dense, LowRank
from lorakit.methods.reparam._ranked import Ranked

__all__ = ["Dense", "Frozen", "LowRank", "PeftForm", "Ranked", "Reparam", "Shape", "Target"]
