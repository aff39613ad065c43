"""Spectra: singular values over their index, as lines of a picture; and the axis of ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from statistics import fmean
from typing import Any

from lorakit.report.picture import COLORS, plain

MAX_BANDS = 2
"""Bands that can still be told apart in one panel."""
MAX_MARKERS = 16
"""Values of a line up to which each has a marker."""


def draw_spectra(axes: Any, weights: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Draw sigma_i / sigma_1, the mean over the layers, a line for each weight.

    weights: weight -> singular values in each layer. Few weights have a band from the smallest to
    the largest value of a layer.
    """
    for (weight, spectra), color in zip(weights.items(), cycle(COLORS), strict=False):
        scaled = [[value / s[0] for value in s] for s in spectra if s[0] > 0]
        # the ranks of layers may differ: as far as all of them have a value
        columns = list(zip(*scaled, strict=False))
        places = range(1, len(columns) + 1)
        if len(weights) <= MAX_BANDS:
            low, high = list(map(min, columns)), list(map(max, columns))
            axes.fill_between(places, low, high, color=color, alpha=0.12, linewidth=0)
        marker = "o" if len(columns) <= MAX_MARKERS else ""
        style = {"color": color, "marker": marker, "markersize": 3}
        axes.plot(places, list(map(fmean, columns)), label=plain(weight), **style)
    # singular values fall by orders of magnitude
    axes.set_yscale("log")
    axes.set_xlabel("i")
    axes.set_xlim(left=1)
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False, fontsize="small")


def set_rank_axis(axes: Any, ranks: Sequence[int]) -> None:
    """Let the x axis have ranks, which double from one to the next."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [str(r) for r in ranks])
    axes.set_xlabel("r")
