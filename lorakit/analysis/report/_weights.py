"""What was found at sites, in the order of a table: by layer, and by the weight that every layer has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

from lorakit.report.changes import in_layer, tails
from lorakit.report.table import NOTHING


class AtSite(Protocol):
    """Anything that was found at one site."""

    @property
    def site(self) -> str: ...


Found = TypeVar("Found", bound=AtSite)


def labels(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Site -> (layer, weight) as they are shown; the weight by the shortest name that tells it from the others."""
    placed = {name: in_layer(name) for name in names}
    groups = list(dict.fromkeys(group for _, group in placed.values()))
    short = dict(zip(groups, tails(groups), strict=True))
    return {
        name: (NOTHING if layer is None else str(layer), short[group])
        for name, (layer, group) in placed.items()
    }


def by_weight(found: Sequence[Found]) -> dict[str, list[Found]]:
    """Weight -> what was found in each layer, in their order."""
    shown, groups = labels(item.site for item in found), defaultdict(list)
    for item in found:
        groups[shown[item.site][1]].append(item)
    return dict(groups)


def mean(values: Iterable[float]) -> float:
    """NaN of nothing."""
    listed = list(values)
    return sum(listed) / len(listed) if listed else float("nan")


def layers_of(found: Sequence[Any]) -> list[float]:
    """Where each stands on an axis of layers; those without a number by their place."""
    return [
        i if (layer := in_layer(item.site)[0]) is None else layer for i, item in enumerate(found)
    ]


def short(value: float) -> str:
    """Three digits, as in the paper's Table 7."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
