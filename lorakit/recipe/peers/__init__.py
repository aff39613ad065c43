"""Peers: keys of LLaMA-Factory, axolotl, TRL, transformers and PEFT, and what each is in a recipe.

One table: a recipe with such a key gets the hint from it, `lorakit import-config` translates with
it, and the pages for people who come from these tools are compared with it.
"""

from __future__ import annotations

from lorakit.recipe.peers._table import NOTHING, Counterpart, Given, NoCounterpart
from lorakit.recipe.peers.hints import hint, shown_value
from lorakit.recipe.peers.table import counterparts, known_keys
from lorakit.recipe.peers.tools import Tool, tool_of

__all__ = [
    "NOTHING",
    "Counterpart",
    "Given",
    "NoCounterpart",
    "Tool",
    "counterparts",
    "hint",
    "known_keys",
    "shown_value",
    "tool_of",
]
