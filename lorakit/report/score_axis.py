"""The axis of scores: it starts at 0, or says that it does not."""

from __future__ import annotations

from itertools import chain
from typing import Any

MOST_EMPTY = 0.5
"""Share of the axis that may be empty below the lowest score. Where more would be, the axis is
cut."""
ZIGZAG = ((0, 0.02), (-0.018, 0.035), (0.018, 0.06), (-0.018, 0.085), (0, 0.1))
"""The mark of a cut axis, as (x, y) in shares of the picture."""


def start_at_zero_or_say(axes: Any) -> None:
    """Let the y axis of a drawn picture start at 0; where that would leave most of it empty, mark
    it as cut by a zigzag and in its name."""
    values = [float(y) for y in chain.from_iterable(line.get_ydata() for line in axes.lines)]
    low = min(values, default=0.0)
    high = max(values, default=0.0)
    if low < 0 <= high:
        return  # 0 is on the axis
    if 0 <= low <= MOST_EMPTY * high:
        axes.set_ylim(bottom=0)
        return
    axes.set_ylabel(f"{axes.get_ylabel()} (cut axis)")
    bottom, top = axes.get_ylim()
    x, y = zip(*ZIGZAG, strict=True)
    color = axes.spines["left"].get_edgecolor()
    axes.plot([0, 0], [y[0], y[-1]], color="white", linewidth=3, **_outside(axes))
    axes.plot(x, y, color=color, linewidth=1, solid_joinstyle="miter", **_outside(axes))
    axes.set_ylim(bottom, top)


def _outside(axes: Any) -> dict[str, Any]:
    return {
        "transform": axes.transAxes,
        "clip_on": False,
        "zorder": 5,
        "scalex": False,
        "scaley": False,
        "linestyle": "-",
        "marker": "",
    }
