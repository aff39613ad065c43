"""Intruder dimensions by weight, and how many there are at every epsilon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorakit.analysis.intruders import Intruders
from lorakit.analysis.report._weights import by_weight, mean
from lorakit.report.picture import COLORS, Picture, figure_of, picture_of, plain
from lorakit.report.table import Table

Runs = Mapping[str, Sequence[Intruders]]
STEPS = 50


def table(runs: Runs, epsilon: float, top: int) -> Table:
    """A row per run and weight, over its layers."""
    rows = []
    for name, found in runs.items():
        for weight, of in by_weight(found).items():
            total, least = sum(i.count for i in of), min(min(i.cosines) for i in of)
            with_one = sum(i.count > 0 for i in of)
            rows.append(
                (
                    name,
                    weight,
                    str(len(of)),
                    str(total),
                    f"{total / len(of):.2f}",
                    str(with_one),
                    f"{least:.3f}",
                )
            )
    header = (
        "run",
        "weight",
        "matrices",
        "intruders",
        "per matrix",
        "matrices with any",
        "least cosine",
    )
    caption = (
        f"first {top} left-singular vectors of W + ΔW whose |cosine| with every one of W is below {epsilon:g}; "
        "least cosine: of the one that is farthest from all of W's"
    )
    return Table(header, tuple(rows), caption, names=2)


def picture(runs: Runs, epsilon: float, top: int) -> Picture:
    """Intruders per matrix over epsilon, a line per run."""
    figure, axes = figure_of("ε", f"of the first {top}, per matrix", width=5.6, height=3.4)
    places = [i / STEPS for i in range(STEPS + 1)]
    for (name, found), color in zip(runs.items(), COLORS * 3, strict=False):
        counts = [mean(sum(c < place for c in i.cosines) for i in found) for place in places]
        axes.plot(places, counts, color=color, label=plain(name))
    axes.axvline(epsilon, color="#555555", linewidth=1, linestyle="--")
    return picture_of(figure, axes, f"Intruder dimensions: {', '.join(runs)}")
