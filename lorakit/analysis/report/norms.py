"""||dW|| / ||W|| as a table of layers x weights, and as the heat map of a run's page."""

from __future__ import annotations

from collections.abc import Sequence

from lorakit.analysis.norms import Norms
from lorakit.analysis.report._weights import labels
from lorakit.report.changes import norm_maps
from lorakit.report.picture import Picture
from lorakit.report.table import NOTHING, Table


def table(name: str, found: Sequence[Norms]) -> Table:
    """A row per layer, a column per weight."""
    shown = labels(n.site for n in found)
    layers = list(dict.fromkeys(layer for layer, _ in shown.values()))
    weights = list(dict.fromkeys(weight for _, weight in shown.values()))
    cells = {shown[n.site]: f"{n.relative:.4f}" for n in found}
    rows = [
        (layer, *(cells.get((layer, weight), NOTHING) for weight in weights)) for layer in layers
    ]
    return Table(("layer", *weights), tuple(rows), f"{name}: ‖ΔW‖ / ‖W‖, Frobenius norms")


def picture(found: Sequence[Norms]) -> Picture:
    """A heat map; bars where the weights stand in no numbered layer."""
    return norm_maps({n.site: n.relative for n in found})[0]
