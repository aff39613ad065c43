"""The complete table, by the keys of peers."""

from __future__ import annotations

from collections import defaultdict
from functools import cache

from lorakit.recipe.peers import data, model, training, unneeded
from lorakit.recipe.peers._table import Counterpart


@cache
def _by_key() -> dict[str, list[Counterpart]]:
    found: dict[str, list[Counterpart]] = defaultdict(list)
    for part in (model, data, training, unneeded):
        for one in part.ROWS:
            for key in one.theirs:
                found[key].append(one)
    return dict(found)


def counterparts(key: str) -> list[Counterpart]:
    """The rows of a key; none: no peer that lorakit knows has it."""
    return _by_key().get(key, [])


def known_keys() -> list[str]:
    """Every key of the table, in its order."""
    return list(_by_key())
