"""Where a run changed the weights: ||dW|| / ||W|| as a heat map of layers and weights, and as bars."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lorakit.report.picture import COLORS, Picture, figure_of, picture_of, plain
from lorakit.report.result import Result

BARS = 24
"""Weights in a bar chart, the largest first."""


def change_maps(result: Result) -> list[Picture]:
    """||dW|| / ||W||, mean over the seeds: layers x weights as a heat map, weights without a layer number as bars."""
    norms: dict[str, list[float]] = defaultdict(list)
    for seed in result.seeds:
        for name, value in seed.delta_norms.items():
            norms[name].append(value)
    return norm_maps({name: sum(values) / len(values) for name, values in norms.items()})


def norm_maps(norms: Mapping[str, float]) -> list[Picture]:
    """As `change_maps`. norms: weight -> ||dW|| / ||W||."""
    cells: dict[tuple[int, str], float] = {}
    others: dict[str, float] = {}
    for name, value in norms.items():
        layer, group = in_layer(name)
        if layer is None:
            others[name] = value
        else:
            cells[layer, group] = value
    return [*([_heat_map(cells)] if cells else []), *([_bars(others)] if others else [])]


def in_layer(name: str) -> tuple[int | None, str]:
    """`a.3.b` -> (3, `a.*.b`): the layer of a weight, and a name that it has in every layer. (None, name) without."""
    layer = re.fullmatch(r"(.*?)\.(\d+)\.(.+)", name)
    return (int(layer[2]), f"{layer[1]}.*.{layer[3]}") if layer else (None, name)


def _heat_map(cells: Mapping[tuple[int, str], float]) -> Picture:
    import matplotlib

    rows, columns = sorted({row for row, _ in cells}), list(dict.fromkeys(column for _, column in cells))
    grid = [[cells.get((row, column), math.nan) for column in columns] for row in rows]
    known = [value for value in cells.values() if value > 0]
    wide = bool(known) and max(known) > 50 * min(known)
    figure, axes = figure_of(
        "", "layer", width=min(9.0, 2.4 + 0.8 * len(columns)), height=min(9.0, 1.5 + 0.24 * len(rows))
    )
    # drawn, and with few enough colours that the bar is drawn too: a picture within the picture would be a data: link
    colors = matplotlib.colormaps["viridis"].resampled(40)
    image = axes.pcolormesh(grid, cmap=colors, norm="log" if wide else "linear", edgecolors="white", linewidth=0.8)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    every = math.ceil(len(rows) / 32)
    axes.set_yticks([i + 0.5 for i in range(0, len(rows), every)], [str(row) for row in rows[::every]])
    upright = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len(columns) > 3 else {}
    axes.set_xticks([j + 0.5 for j in range(len(columns))], [plain(tail) for tail in tails(columns)], **upright)
    if len(columns) <= 8 and len(rows) <= 24:
        _write_in(axes, image, grid)
    bar = figure.colorbar(image, ax=axes, label="‖ΔW‖ / ‖W‖")
    bar.outline.set_visible(False)
    bar.solids.set_edgecolor("face")  # else hair lines stand between its colours
    return picture_of(figure, axes, "Relative size of the change, by layer and weight", wide=len(columns) > 4)


def _write_in(axes: Any, image: Any, grid: Sequence[Sequence[float]]) -> None:
    for (i, row), j in itertools.product(enumerate(grid), range(len(grid[0]))):
        if not math.isnan(row[j]):
            ink = "white" if image.norm(row[j]) <= 0.6 else "black"
            axes.text(j + 0.5, i + 0.5, f"{row[j]:.2g}", ha="center", va="center", color=ink, fontsize=7)


def _bars(norms: Mapping[str, float]) -> Picture:
    shown = sorted(norms.items(), key=lambda item: -item[1])[:BARS][::-1]
    figure, axes = figure_of("‖ΔW‖ / ‖W‖", "", width=5.6, height=1.0 + 0.26 * len(shown))
    axes.barh(range(len(shown)), [value for _, value in shown], color=COLORS[0], height=0.7)
    axes.set_yticks(range(len(shown)), [plain(name) for name in tails([n for n, _ in shown], least=2)])
    axes.grid(visible=False, axis="y")
    left_out = f"; {len(norms) - len(shown)} smaller ones are left out" if len(norms) > len(shown) else ""
    return picture_of(figure, axes, f"Relative size of the change, weights outside of the layers{left_out}")


def tails(names: Sequence[str], least: int = 1) -> list[str]:
    """The shortest end of each dotted name, of `least` parts or more, that no other name shares."""
    parts = [name.split(".") for name in names]
    ends = Counter(tuple(p[-n:]) for p in parts for n in range(1, len(p) + 1))
    return [
        ".".join(next((p[-n:] for n in range(least, len(p) + 1) if ends[tuple(p[-n:])] == 1), p)).removeprefix("*.")
        for p in parts
    ]
