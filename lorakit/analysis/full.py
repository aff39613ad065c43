r"""Full fine-tuning as a low rank: the spectrum of dW = W_FT - W0, and what its best rank r omits.

    error(r) = ||dW - dW_r||_F / ||dW||_F = sqrt(sum_{i > r} sigma_i^2 / sum_i sigma_i^2)

dW_r: the first r terms of the singular value decomposition. No matrix of rank r is nearer (Eckart
and Young 1936), so this is a bound for every B A that copies dW. It is not a bound for what LoRA
can learn, because that may be another change.

The scores of LoRA runs of several ranks are shown with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from lorakit.analysis._base import Analysis, Findings, Reads, Request
from lorakit.analysis._change import MAX_SINGULAR_VALUES, Change
from lorakit.analysis._load import RunChanges
from lorakit.analysis._sites import by_weight, three_digits
from lorakit.analysis._spectra import draw_spectra, set_rank_axis
from lorakit.errors import InputError
from lorakit.report.picture import COLORS, Picture, panels_of, picture_of
from lorakit.report.table import NOTHING, Table, main_metric, main_row, measured
from lorakit.runs.folder import is_seed
from lorakit.runs.result import Result, Row
from lorakit.runs.same import DATA_FILE

READS = Reads(methods=("full",), needs_base=True)
RANKS = (1, 2, 4, 8, 16, 32, 64)
"""Ranks of the table and of the axis."""


@dataclass(frozen=True)
class Truncation:
    """What each rank omits at one site."""

    site: str
    norm: float
    """||dW||_F"""
    singular: list[float]
    """The largest singular values, at most MAX_SINGULAR_VALUES."""
    errors: list[float]
    """error(r) for r = 1, 2, ..., as many as there are singular values."""


@dataclass(frozen=True)
class RunScore:
    """The score of a run by its main metric."""

    name: str
    r: int | None
    """The rank of a LoRA run; None for full fine-tuning."""
    row: Row

    def to_json(self) -> dict[str, Any]:
        """The entry of this run in the list of scores."""
        row = self.row
        # JSON has no NaN, which is a metric that could not be computed
        values = [None if math.isnan(value) else value for value in row.values]
        of_row = {"metric": row.metric, "split": row.split, "values": values}
        return {"name": self.name, "r": self.r, **of_row}


def truncation_errors(s: Tensor) -> Tensor:
    """s: all singular values (n), largest first -> error(r) for r = 1 ... n; zeros for dW = 0.

    The last error is 0.
    """
    # summed from the small end: next to the large values, the small ones would be rounded away
    remaining = s.square().flip(0).cumsum(0).flip(0)
    omitted = torch.cat([remaining[1:], remaining.new_zeros(1)])
    return (omitted / remaining[0]).sqrt() if remaining[0] > 0 else torch.zeros_like(s)


def truncation(change: Change) -> Truncation:
    """What each rank omits of one change; W is not needed."""
    s = change.svd[1]
    errors = truncation_errors(s)[:MAX_SINGULAR_VALUES]
    singular = s[:MAX_SINGULAR_VALUES]
    return Truncation(change.site, float(s.norm()), singular.tolist(), errors.tolist())


def table(name: str, found: Sequence[Truncation], scores: Sequence[RunScore]) -> Table:
    """A row for each weight: the error of each rank, mean over the layers; then the scores."""
    known = min(len(t.errors) for t in found)
    ranks = sorted({*(r for r in RANKS if r <= known), *(s.r for s in scores if s.r)})
    rows = []
    for weight, of in by_weight(found).items():
        norm = three_digits(fmean(t.norm for t in of))
        rows.append((weight, str(len(of)), norm, *(_error(of, r) for r in ranks)))
    rows += [_score_row(score, ranks) for score in scores]
    header = ("weight", "n", "‖ΔW‖", *(f"r={r}" for r in ranks))
    caption = (
        f"{name}: ‖ΔW - ΔWᵣ‖ / ‖ΔW‖ of ΔW = W_FT - W0 and its best rank r (Eckart and Young), "
        "mean over n layers"
    )
    if scores:
        caption += "; scores: mean ± std of n seeds, full fine-tuning's under ‖ΔW‖"
    return Table(header, tuple(rows), caption)


def _error(of: Sequence[Truncation], r: int) -> str:
    if any(r > len(t.errors) for t in of):
        return NOTHING  # only the first MAX_SINGULAR_VALUES errors are kept
    return f"{fmean(t.errors[r - 1] for t in of):.3f}"


def _score_row(score: RunScore, ranks: Sequence[int]) -> tuple[str, ...]:
    what = "full" if score.r is None else f"LoRA r={score.r}"
    # the score of full fine-tuning has no rank: its place is the column of the norm
    cells = [measured(score.row) if r == score.r else NOTHING for r in (None, *ranks)]
    return (f"{score.row.metric}, {what}", str(len(score.row.values)), *cells)


def picture(name: str, found: Sequence[Truncation], scores: Sequence[RunScore]) -> Picture:
    """Singular values, the error over r, and the score over r where LoRA runs were given."""
    lora_ranks = sorted({s.r for s in scores if s.r is not None})
    panels = 3 if lora_ranks else 2
    figure, axes = panels_of(1, panels, 1.0 + 3.6 * panels, 3.3)
    weights = by_weight(found)
    spectra = axes[0][0]
    draw_spectra(spectra, {weight: [t.singular for t in of] for weight, of in weights.items()})
    spectra.set_ylabel("σᵢ / σ₁ of W_FT - W0")
    _draw_errors(axes[0][1], list(weights.values()))
    set_rank_axis(axes[0][1], RANKS)
    if lora_ranks:
        _draw_scores(axes[0][2], scores)
        set_rank_axis(axes[0][2], lora_ranks)
    return picture_of(figure, None, f"Full fine-tuning as a low rank: {name}", wide=True)


def _draw_errors(axes: Any, weights: Sequence[Sequence[Truncation]]) -> None:
    for of, color in zip(weights, cycle(COLORS), strict=False):
        columns = list(zip(*(t.errors for t in of), strict=False))
        axes.plot(range(1, len(columns) + 1), [fmean(column) for column in columns], color=color)
    axes.set_ylabel("‖ΔW - ΔWᵣ‖ / ‖ΔW‖")
    axes.set_ylim(0, 1)


def _draw_scores(axes: Any, scores: Sequence[RunScore]) -> None:
    marker = {"color": COLORS[0], "marker": "o", "markersize": 4}
    for score in scores:
        center, std = score.row.mean, score.row.std or 0.0
        if score.r is None:
            axes.axhspan(center - std, center + std, color="#000000", alpha=0.08, linewidth=0)
            axes.axhline(center, color="#555555", linewidth=1, linestyle="--", label="full")
        else:
            axes.errorbar(score.r, center, yerr=std, capsize=3, **marker)
    axes.set_ylabel(f"{scores[0].row.metric}, {scores[0].row.split}")
    axes.plot([], [], label="LoRA", **marker)
    axes.legend(frameon=False, fontsize="small")


def answer(request: Request) -> Findings:
    """The truncation errors of the first run, and the scores of the LoRA runs after it."""
    first, *others = request.runs
    run = request.load(first, READS)
    found = [truncation(change) for change in run.changes]
    scores = _scores(run, [other.path for other in others])
    return Findings(
        [run],
        found,
        table(run.name, found, scores),
        picture(run.name, found, scores),
        extra={"scores": [score.to_json() for score in scores]},
    )


def _scores(full: RunChanges, lora_runs: Sequence[str]) -> list[RunScore]:
    """The scores of the LoRA runs; first the full run's own, where its result is known.

    InputError: a run has no score, was not trained with LoRA, or was scored on something else.
    """
    runs = [_Scored.read(path) for path in lora_runs]
    for run in runs:
        run.refuse_other_method()
    own = _run_folder(full.path) / "result.json"
    # an adapter outside of its run has no result
    if runs and own.is_file():
        runs.insert(0, _Scored.read(full.path))
    elif runs and full.source.recipe and full.source.recipe.task.name != runs[0].result.task:
        raise InputError(
            f"{runs[0].path} was trained on {runs[0].result.task}, and {full.path} on "
            f"{full.source.recipe.task.name}: their scores cannot be compared"
        )
    scores = [run.score(full.name) for run in runs]
    for run in runs[1:]:
        run.refuse_unlike(runs[0])
    return scores


@dataclass(frozen=True)
class _Scored:
    """A finished run whose score is shown."""

    path: str
    result: Result

    @classmethod
    def read(cls, path: str) -> _Scored:
        """DataError: the run has no result."""
        return cls(path, Result.read(_run_folder(path) / "result.json"))

    @property
    def method(self) -> str:
        return str(self.result.method.get("name"))

    def refuse_other_method(self) -> None:
        if self.method != "lora":
            raise InputError(
                f"{self.path} was trained with {self.method}; after the full run, give LoRA runs"
            )

    def refuse_unlike(self, first: _Scored) -> None:
        """InputError: the score is of another task, split, metric or other examples."""
        theirs = first._scored_on()
        for what, own in self._scored_on().items():
            if own != theirs[what]:
                raise InputError(
                    f"{self.path} has the {what} {own}, and {first.path} has {theirs[what]}: "
                    "their scores cannot be compared"
                )

    def _scored_on(self) -> dict[str, object]:
        split, metric = main_metric(self.result)
        file = _run_folder(self.path) / DATA_FILE
        data = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        task = self.result.task
        return {"task": task, "split": split, "metric": metric, "examples": data.get(split)}

    def score(self, name_of_full: str) -> RunScore:
        """InputError: the run has none (`task.validation: none`)."""
        row = main_row(self.result)
        if row is None:
            raise InputError(f"{self.path} has no score; give runs that were scored on a split")
        if self.method == "lora":
            return RunScore(_run_folder(self.path).name, self.result.method["r"], row)
        return RunScore(name_of_full, None, row)


def _run_folder(path: str) -> Path:
    folder = Path(path)
    return folder.parent if is_seed(folder) else folder


PLUGIN = Analysis(READS, answer)
