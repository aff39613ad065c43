"""Effective and stable rank of dW by site, and its singular values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorakit.analysis.rank import Spectrum
from lorakit.analysis.report._weights import by_weight, labels, mean, short
from lorakit.report.picture import COLORS, Picture, panels_of, picture_of, plain
from lorakit.report.table import Table

Runs = Mapping[str, Sequence[Spectrum]]
BANDS = 2
"""Weights whose bands can be told apart."""


def table(runs: Runs) -> Table:
    """A row per run and site."""
    rows = []
    for name, found in runs.items():
        shown = labels(s.site for s in found)
        for s in found:
            norm, numbers = (
                s.singular[0],
                (f"{s.effective:.2f}", f"{s.stable:.2f}", f"{100 * s.first:.0f} %"),
            )
            rows.append(
                (
                    *([name] if len(runs) > 1 else []),
                    *shown[s.site],
                    str(s.full),
                    *numbers,
                    short(norm),
                )
            )
    first = ("run",) if len(runs) > 1 else ()
    header = (*first, "layer", "weight", "rank", "effective", "stable", "in the first", "σ₁")
    caption = (
        "effective rank exp(-Σ p ln p), p = σ/Σσ; stable rank Σσ²/σ₁²; in the first: its share of ‖ΔW‖², "
        "the inverse of the stable rank"
    )
    return Table(
        header,
        tuple(rows),
        caption if len(runs) > 1 else f"{next(iter(runs))}: {caption}",
        len(first) + 2,
    )


def picture(runs: Runs) -> Picture:
    """A panel per run: singular values over the largest, a line per weight, in the band of its layers."""
    figure, axes = panels_of(1, len(runs), 1.0 + 3.6 * len(runs), 3.2, sharey=True)
    for one, (name, found) in zip(axes[0], runs.items(), strict=True):
        spectra_by_weight(
            one, {weight: [s.singular for s in of] for weight, of in by_weight(found).items()}
        )
        one.set_title(plain(name), fontsize="medium")
    axes[0][0].set_ylabel("σᵢ / σ₁ of ΔW")
    return picture_of(figure, None, f"Singular values of ΔW: {', '.join(runs)}", wide=len(runs) > 1)


def spectra_by_weight(axes: Any, weights: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """sigma_i / sigma_1, mean over the layers, a line per weight; of few weights in the band of their layers."""
    for (weight, spectra), color in zip(weights.items(), COLORS * 3, strict=False):
        scaled = [[value / s[0] for value in s] for s in spectra if s[0] > 0]
        size = min(map(len, scaled), default=0)
        places, columns = range(1, size + 1), [[s[i] for s in scaled] for i in range(size)]
        if len(weights) <= BANDS:
            low, high = list(map(min, columns)), list(map(max, columns))
            axes.fill_between(places, low, high, color=color, alpha=0.12, linewidth=0)
        axes.plot(
            places,
            list(map(mean, columns)),
            color=color,
            marker="o" if size <= 16 else "",
            markersize=3,
            label=plain(weight),
        )
    axes.set_yscale("log")
    axes.set_xlabel("i")
    axes.set_xlim(left=1)
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False, fontsize="small")
