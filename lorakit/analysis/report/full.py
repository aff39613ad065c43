"""The spectrum of W_FT - W0 by weight, what rank r leaves out of it, and the scores of LoRA runs of that rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lorakit.analysis.full import Truncation
from lorakit.analysis.report._weights import by_weight, mean, short
from lorakit.analysis.report.rank import spectra_by_weight
from lorakit.report.picture import COLORS, Picture, panels_of, picture_of
from lorakit.report.table import NOTHING, Table, main_metric, measured
from lorakit.runs.result import Result, Row, summary

RANKS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Score:
    """The score of a run: its rank (None: full fine-tuning), and the row of its main metric."""

    name: str
    r: int | None
    row: Row


def score_of(name: str, r: int | None, result: Result) -> Score:
    """By the metric that the run is known by."""
    row = next(row for row in summary(result) if (row.split, row.metric) == main_metric(result))
    return Score(name, r, row)


def table(name: str, found: Sequence[Truncation], scores: Sequence[Score]) -> Table:
    """A row per weight: the relative truncation error at each rank, mean over the layers; then the scores."""
    known = min(len(t.errors) for t in found)
    ranks = sorted({*(r for r in RANKS if r <= known), *(s.r for s in scores if s.r)})
    rows = [
        (weight, str(len(of)), short(mean(t.norm for t in of)), *(_error(of, r) for r in ranks))
        for weight, of in by_weight(found).items()
    ]
    for score in scores:
        what = f"{score.row.metric}, {'full' if score.r is None else f'LoRA r={score.r}'}"
        cells = [measured(score.row) if r == score.r else NOTHING for r in ranks]
        rows.append(
            (
                what,
                str(len(score.row.values)),
                measured(score.row) if score.r is None else NOTHING,
                *cells,
            )
        )
    header = ("weight", "n", "‖ΔW‖", *(f"r={r}" for r in ranks))
    caption = (
        f"{name}: ‖ΔW - ΔWᵣ‖ / ‖ΔW‖ of ΔW = W_FT - W0 and its best rank r (Eckart and Young), mean over n layers"
        + ("; scores: mean ± std of n seeds, full fine-tuning's under ‖ΔW‖" if scores else "")
    )
    return Table(header, tuple(rows), caption)


def _error(of: Sequence[Truncation], r: int) -> str:
    """Past the errors that are kept, nothing is said."""
    return (
        f"{mean(t.errors[r - 1] for t in of):.3f}"
        if all(r <= len(t.errors) for t in of)
        else NOTHING
    )


def picture(name: str, found: Sequence[Truncation], scores: Sequence[Score]) -> Picture:
    """Singular values, the truncation error over r, and where there are LoRA runs their score over r."""
    lora = [s for s in scores if s.r is not None]
    figure, axes = panels_of(1, 2 + bool(lora), 1.0 + 3.6 * (2 + bool(lora)), 3.3)
    spectra, errors = axes[0][0], axes[0][1]
    weights = by_weight(found)
    spectra_by_weight(spectra, {weight: [t.singular for t in of] for weight, of in weights.items()})
    for of, color in zip(weights.values(), COLORS * 3, strict=False):
        columns = list(zip(*(t.errors for t in of), strict=False))
        errors.plot(range(1, len(columns) + 1), [mean(column) for column in columns], color=color)
    spectra.set_ylabel("σᵢ / σ₁ of W_FT - W0")
    errors.set_ylabel("‖ΔW - ΔWᵣ‖ / ‖ΔW‖")
    errors.set_ylim(0, 1)
    _by_rank(errors, RANKS)
    if lora:
        _scores(axes[0][2], scores)
        _by_rank(axes[0][2], sorted({s.r for s in lora if s.r}))
    return picture_of(figure, None, f"Full fine-tuning as a low rank: {name}", wide=True)


def _by_rank(axes: Any, ranks: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [str(r) for r in ranks])
    axes.set_xlabel("r")


def _scores(axes: Any, scores: Sequence[Score]) -> None:
    for score in scores:
        mean_, std = score.row.mean, score.row.std or 0.0
        if score.r is None:
            axes.axhspan(mean_ - std, mean_ + std, color="#000000", alpha=0.08, linewidth=0)
            axes.axhline(mean_, color="#555555", linewidth=1, linestyle="--", label="full")
        else:
            axes.errorbar(
                score.r, mean_, yerr=std, color=COLORS[0], marker="o", markersize=4, capsize=3
            )
    axes.set_ylabel(f"{scores[0].row.metric}, {scores[0].row.split}")
    axes.plot([], [], color=COLORS[0], marker="o", markersize=4, label="LoRA")
    axes.legend(frameon=False, fontsize="small")
