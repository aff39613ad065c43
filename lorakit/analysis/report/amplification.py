"""Table 7 of the paper for every site, and its norms over the layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorakit.analysis.amplification import Amplification
from lorakit.analysis.report._weights import by_weight, labels, layers_of, short
from lorakit.report.picture import COLORS, Picture, panels_of, picture_of, plain
from lorakit.report.table import NOTHING, Table

Runs = Mapping[str, Sequence[Amplification]]
"""Name of a run -> what was found at its sites."""
LINES = (
    ("‖UᵀWVᵀ‖, U and V of W", "onto_base"),
    ("of a random matrix", "onto_random"),
    ("of ΔW", "onto_delta"),
    ("‖ΔW‖", "delta"),
)


def table(runs: Runs) -> Table:
    """A row per run and site."""
    rows = []
    for name, found in runs.items():
        shown = labels(a.site for a in found)
        for a in found:
            numbers = (a.base, a.delta, a.onto_delta, a.onto_base, a.onto_random)
            factor = NOTHING if a.factor is None else short(a.factor)
            rows.append(
                (
                    *([name] if len(runs) > 1 else []),
                    *shown[a.site],
                    str(a.r),
                    *map(short, numbers),
                    factor,
                )
            )
    first = ("run",) if len(runs) > 1 else ()
    header = (
        *first,
        "layer",
        "weight",
        "r",
        "‖W‖",
        "‖ΔW‖",
        "U,V of ΔW",
        "of W",
        "random",
        "factor",
    )
    caption = "‖UᵀWVᵀ‖ with the first r singular vectors of ΔW, of W, of a random matrix; factor = ‖ΔW‖ / the first"
    return Table(
        header,
        tuple(rows),
        caption if len(runs) > 1 else f"{next(iter(runs))}: {caption}",
        len(first) + 2,
    )


def picture(runs: Runs) -> Picture:
    """A panel per run and weight: the norms over the layers. The gap between the last two lines is the factor."""
    weights = {name: by_weight(found) for name, found in runs.items()}
    columns = max(map(len, weights.values()))
    figure, axes = panels_of(
        len(runs), columns, 1.2 + 2.6 * columns, 0.6 + 2.5 * len(runs), sharey=True
    )
    for row, (name, groups) in zip(axes, weights.items(), strict=True):
        for one, (weight, found) in zip(row, groups.items(), strict=False):
            for (label, key), color in zip(LINES, COLORS, strict=False):
                style = {"linestyle": "--"} if key == "delta" else {}
                values = [getattr(a, key) for a in found]
                one.plot(
                    layers_of(found),
                    values,
                    marker="o",
                    markersize=3,
                    color=color,
                    label=label,
                    **style,
                )
            one.set_yscale("log")
            one.set_title(plain(f"{weight}, r={found[0].r}"), fontsize="medium")
            one.set_xlabel("layer")
            one.locator_params(axis="x", integer=True)
        for unused in row[len(groups) :]:
            unused.set_visible(False)
        row[0].set_ylabel(plain(name) if len(runs) > 1 else "Frobenius norm")
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
    )
    title = f"What of W lies where ΔW acts: {', '.join(runs)}"
    return picture_of(figure, None, title, wide=columns > 2)
