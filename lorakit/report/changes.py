"""Where a run changed the weights: ||dW|| / ||W|| as a heat map of layers and weights, and as bars."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from lorakit.report.heat import heat_map
from lorakit.report.picture import COLORS, Picture, figure_of, picture_of, plain
from lorakit.runs.result import Result

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
    rows, columns = (
        sorted({row for row, _ in cells}),
        list(dict.fromkeys(column for _, column in cells)),
    )
    grid = [[cells.get((row, column), math.nan) for column in columns] for row in rows]
    title = "Relative size of the change, by layer and weight"
    return heat_map(grid, list(map(str, rows)), tails(columns), ("", "layer"), "‖ΔW‖ / ‖W‖", title)


def _bars(norms: Mapping[str, float]) -> Picture:
    shown = sorted(norms.items(), key=lambda item: -item[1])[:BARS][::-1]
    figure, axes = figure_of("‖ΔW‖ / ‖W‖", "", width=5.6, height=1.0 + 0.26 * len(shown))
    axes.barh(range(len(shown)), [value for _, value in shown], color=COLORS[0], height=0.7)
    axes.set_yticks(
        range(len(shown)), [plain(name) for name in tails([n for n, _ in shown], least=2)]
    )
    axes.grid(visible=False, axis="y")
    left_out = (
        f"; {len(norms) - len(shown)} smaller ones are left out" if len(norms) > len(shown) else ""
    )
    return picture_of(
        figure, axes, f"Relative size of the change, weights outside of the layers{left_out}"
    )


def tails(names: Sequence[str], least: int = 1) -> list[str]:
    """The shortest end of each dotted name, of `least` parts or more, that no other name shares."""
    parts = [name.split(".") for name in names]
    ends = Counter(tuple(p[-n:]) for p in parts for n in range(1, len(p) + 1))
    return [
        ".".join(
            next((p[-n:] for n in range(least, len(p) + 1) if ends[tuple(p[-n:])] == 1), p)
        ).removeprefix("*.")
        for p in parts
    ]
