"""A heat map: rows x columns of numbers, drawn as paths, for a page that shows no picture within a picture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from lorakit.report.picture import Picture, figure_of, picture_of, plain

WRITTEN = (24, 8)
"""Rows and columns up to which each number stands in its cell."""
LABELS = 32
"""Rows that have a label; of more, every second, third, ..."""


def heat_map(
    grid: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    axes_are: tuple[str, str],
    bar: str,
    title: str,
    colors: str = "viridis",
    low: float | None = None,
    high: float | None = None,
    form: str = ".2g",
) -> Picture:
    """NaN: no cell. axes_are: what the columns are, and the rows; bar: what the numbers are. low, high: ends of the
    colours; without them, the least and the greatest, on a logarithmic scale where they are a factor of 50 apart."""
    import matplotlib

    known = [value for row in grid for value in row if value > 0]
    wide = low is None and bool(known) and max(known) > 50 * min(known)
    written = len(rows) <= WRITTEN[0] and len(columns) <= WRITTEN[1]
    beside, below = (
        min(40, max(map(len, names))) * 0.08 for names in (rows, columns)
    )  # inches of the longest name
    long = len(columns) > 3 and below > 0.32
    sideways, down = (0.87 * below, 0.5 * below) if long else (0.0, 0.0)  # at 30 degrees
    each = max(0.8 if written else 0.35, 0.0 if long else below)
    width = min(12.0, 1.9 + max(beside, sideways) + each * len(columns))
    figure, axes = figure_of(*axes_are, width=width, height=min(9.0, 1.5 + down + 0.24 * len(rows)))
    # drawn, and with few enough colours that the bar is drawn too: a picture within the picture would be a data: link
    steps = matplotlib.colormaps[colors].resampled(40)
    ends = {} if wide else {"vmin": low, "vmax": high}
    image = axes.pcolormesh(
        [list(row) for row in grid],
        cmap=steps,
        norm="log" if wide else "linear",
        edgecolors="white",
        linewidth=0.8,
        **ends,
    )
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    every = math.ceil(len(rows) / LABELS)
    axes.set_yticks(
        [i + 0.5 for i in range(0, len(rows), every)], [plain(row) for row in rows[::every]]
    )
    upright = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if long else {}
    axes.set_xticks(
        [j + 0.5 for j in range(len(columns))], [plain(column) for column in columns], **upright
    )
    if written:
        shades = image.cmap(image.norm(image.get_array()))
        for i, j in itertools.product(range(len(rows)), range(len(columns))):
            if not math.isnan(grid[i][j]):
                red, green, blue, there = shades[i][j]
                ink = (
                    "white"
                    if there and 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
                    else "black"
                )
                axes.text(
                    j + 0.5,
                    i + 0.5,
                    format(grid[i][j], form),
                    ha="center",
                    va="center",
                    color=ink,
                    fontsize=7,
                )
    scale = figure.colorbar(image, ax=axes, label=bar)
    scale.outline.set_visible(False)
    scale.solids.set_edgecolor("face")  # else hair lines stand between its colours
    return picture_of(figure, axes, title, wide=width > 5.6)
