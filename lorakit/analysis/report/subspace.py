"""phi as a table by site, and as the heat maps of the paper's Figures 3 and 4."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from lorakit.analysis.report._weights import labels, mean
from lorakit.analysis.subspace import Map, Overlap
from lorakit.report.changes import in_layer
from lorakit.report.picture import Picture, panels_of, picture_of, plain
from lorakit.report.table import Table


def table(found: Sequence[Overlap], between: str) -> Table:
    """A row per site. p: the smaller rank; phi(r1, r2), of all directions, where the ranks differ."""
    shown = labels(o.site for o in found)
    differ = any(r1 < r2 for r1, r2 in (o.ranks for o in found))
    rows = [
        (*shown[o.site], *map(str, o.ranks), *(f"{value:.3f}" for value in _numbers(o, differ)))
        for o in found
    ]
    over = f", mean over {len(found[0].each)} pairs" if len(found[0].each) > 1 else ""
    whole = ("φ(r1,r2)",) if differ else ()
    header = (
        "layer",
        "weight",
        "r1",
        "r2",
        "φ(1,1)",
        "φ(p,p)",
        *whole,
        "random φ(1,1)",
        "random φ(p,p)",
    )
    caption = (
        f"φ(i,j) = ‖V1ᵢᵀ V2ⱼ‖² / min(i,j) of the right-singular vectors of A, p = min(r1, r2){over}: {between}. "
        "Expected of random subspaces: max(i,j) / inputs"
    )
    return Table(header, tuple(rows), caption, names=2)


def _numbers(o: Overlap, differ: bool) -> tuple[float, ...]:
    p = o.ranks[0] - 1
    whole = (o.phi[-1][-1],) if differ else ()
    return o.phi[0][0], o.phi[p][p], *whole, o.random[0][0], o.random[p][p]


def drawn(found: Sequence[Overlap]) -> list[Overlap]:
    """Those of one layer, the middle one, as the paper draws layer 48 of 96."""
    layers = sorted({layer for o in found if (layer := in_layer(o.site)[0]) is not None})
    return [o for o in found if not layers or in_layer(o.site)[0] == layers[len(layers) // 2]]


def picture(found: Sequence[Overlap], between: str) -> Picture:
    """A map per weight and one of random matrices; below, where the ranks differ, their lower-left triangles."""
    shown = labels(o.site for o in found)
    chosen = drawn(found)
    layer, ranks = shown[chosen[0].site][0], {o.ranks for o in chosen}
    of = [f", of r={r}" for r in chosen[0].ranks] if len(ranks) == 1 else ["", ""]
    maps = [(f"{shown[o.site][1]}, layer {layer}", o.phi) for o in chosen] + _random(chosen)
    zoom = any(r1 < r2 for r1, r2 in ranks)
    figure, axes = panels_of(1 + zoom, len(maps), 1.2 + 2.3 * len(maps), 2.7 * (1 + zoom))
    scale = _scale(max(max(map(max, phi)) for _, phi in maps))
    for column, (name, phi) in enumerate(maps):
        _map(axes[0][column], phi, scale)
        axes[0][column].set_title(plain(name), fontsize="medium")
        if zoom:
            _map(axes[1][column], _triangle(phi), scale)
    for row in axes:
        row[0].set_ylabel(f"i{of[0]}")
    for one in axes[-1]:
        one.set_xlabel(f"j{of[1]}")
    bar = figure.colorbar(scale, ax=axes, label="φ(i, j)", shrink=0.9)
    bar.outline.set_visible(False)
    bar.solids.set_edgecolor("face")
    return picture_of(
        figure, None, f"Shared directions, layer {layer}: {between}", wide=len(maps) > 2
    )


def _random(chosen: Sequence[Overlap]) -> list[tuple[str, Map]]:
    """One for each shape."""
    shapes = {(*o.ranks, o.width): o.random for o in chosen}
    return [
        ("random" if len(shapes) == 1 else f"random, {width} inputs", m)
        for (*_, width), m in shapes.items()
    ]


def _scale(largest: float) -> Any:
    """The colours from 0 to the tenth above the largest phi; what is no number is left white."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colors = matplotlib.colormaps["viridis"].resampled(40).with_extremes(bad="white")
    return ScalarMappable(Normalize(0, max(0.1, math.ceil(10 * largest) / 10)), colors)


def _triangle(phi: Map) -> Map:
    """j <= i: how far the first j directions of the larger rank lie in the first i of the smaller one."""
    return [
        [value if j <= i else math.nan for j, value in enumerate(row[: len(phi)])]
        for i, row in enumerate(phi)
    ]


def _map(axes: Any, phi: Map, scale: Any) -> None:
    """i downwards and j to the right, as in the paper. Neighbours of one colour are drawn as one: 64 x 64 cells, each a
    path, would be megabytes."""
    for i, row in enumerate(phi):
        runs = [
            (color, len(list(of)))
            for color, of in itertools.groupby(scale.to_rgba(value) for value in row)
        ]
        starts = [0, *itertools.accumulate(length for _, length in runs)]
        bars = [(start, length) for start, (_, length) in zip(starts, runs, strict=False)]
        colors = [color for color, _ in runs]
        axes.broken_barh(bars, (i, 1), facecolors=colors, edgecolors="face", linewidth=0.5)
    axes.set_xlim(0, len(phi[0]))
    axes.set_ylim(len(phi), 0)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for ticks, size in ((axes.set_xticks, len(phi[0])), (axes.set_yticks, len(phi))):
        places = range(0, size, math.ceil(size / 8))
        ticks([place + 0.5 for place in places], [str(place + 1) for place in places])


def headline(found: Sequence[Overlap]) -> str:
    """One line: what is shared beyond chance."""
    first, whole = (
        mean(o.phi[0][0] for o in found),
        mean(o.phi[o.ranks[0] - 1][o.ranks[0] - 1] for o in found),
    )
    chance = mean(1 / o.width for o in found), mean(o.ranks[0] / o.width for o in found)
    return f"mean φ(1,1) {first:.3f} (chance {chance[0]:.3f}), mean φ(p,p) {whole:.3f} (chance {chance[1]:.3f})"
