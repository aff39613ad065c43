"""Curves of a run over its steps and epochs."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lorakit.report.picture import COLORS, Picture, figure_of, picture_of, plain
from lorakit.report.table import published
from lorakit.runs.result import Result, Row, summary

Logs = Mapping[int, Sequence[Mapping[str, Any]]]
"""seed -> the lines of its metrics.jsonl"""
Points = Sequence[tuple[float, float]]

DASHES = ("-", "--", ":")
"""Past as many seeds as there are colours."""
BINS = 120
"""Points of a curve: more are not seen, and a long run has a hundred thousand steps."""


def loss_curve(logs: Logs) -> list[Picture]:
    """Mean loss over a hundredth of the steps, a line per seed, in the band between the least and the greatest."""
    seeds = {seed: points for seed, lines in logs.items() if (points := _steps(lines, "loss"))}
    if not seeds:
        return []
    figure, axes = figure_of("optimizer step", "training loss")
    for (seed, points), style in zip(seeds.items(), _styles(), strict=False):
        x, mean, low, high = zip(*_binned(points), strict=True)
        axes.fill_between(
            x, low, high, color=style["color"], alpha=0.35 / (1 + len(seeds)), linewidth=0
        )
        axes.plot(x, mean, label=f"seed {seed}", **style)
    return [picture_of(figure, axes, "Training loss")]


def rate_curve(logs: Logs) -> list[Picture]:
    """The learning rate, which all seeds share, of the seed that went on longest."""
    points = max((_steps(lines, "learning_rate") for lines in logs.values()), key=len, default=[])
    if not points:
        return []
    figure, axes = figure_of("optimizer step", "learning rate")
    x, y = zip(*_thinned(points), strict=True)
    axes.plot(x, y, color=COLORS[0], linewidth=1.8)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    return [picture_of(figure, axes, "Learning rate")]


def score_curves(logs: Logs, result: Result) -> list[Picture]:
    """A picture per split and metric, a line per seed. Ring: the state that was kept; band: the published number.

    None where no seed was scored twice: one point is in the table.
    """
    rows = {(row.split, row.metric): row for row in summary(result)}
    kept = {seed.seed: seed.best_epoch for seed in result.seeds}
    curves = {
        key: seeds for key, seeds in _scores(logs).items() if max(map(len, seeds.values())) > 1
    }
    return [_score_curve(key, seeds, rows.get(key), kept) for key, seeds in curves.items()]


def mean_curves(runs: Mapping[str, Logs], metric: tuple[str, str]) -> list[Picture]:
    """The score over the epochs, a line per run: the mean over its seeds, as far as all of them went. None where there
    are more runs than lines that the eye tells apart, or where no run was scored twice."""
    lines: dict[str, Points] = {}
    for label, logs in runs.items():
        seeds = _scores(logs).get(metric, {})
        points = [dict(of) for of in seeds.values()]
        shared = sorted(set.intersection(*map(set, points))) if points else []
        lines[label] = [(x, statistics.fmean(of[x] for of in points)) for x in shared]
    lines = {label: points for label, points in lines.items() if len(points) > 1}
    if not 0 < len(lines) <= len(COLORS) * len(DASHES):
        return []
    figure, axes = figure_of("epoch", metric[1], height=2.7 + 0.17 * len(lines))
    for (label, points), style in zip(lines.items(), _styles(), strict=False):
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=plain(label), **style)
    axes.locator_params(
        axis="x", integer=max(x for points in lines.values() for x, _ in points) >= 2
    )
    figure.legend(loc="outside lower center", frameon=False, fontsize="small", ncols=1)
    return [picture_of(figure, None, f"{metric[1]} on {metric[0]} over the epochs")]


def _score_curve(
    key: tuple[str, str],
    seeds: Mapping[int, Points],
    row: Row | None,
    kept: Mapping[int, float | None],
) -> Picture:
    split, metric = key
    figure, axes = figure_of("epoch", metric)
    if row is not None and row.published is not None and row.comparable:
        spread = row.published_spread or 0.0
        axes.axhspan(
            row.published - spread, row.published + spread, color="#000000", alpha=0.08, linewidth=0
        )
        axes.axhline(
            row.published,
            color="#555555",
            linewidth=1,
            linestyle="--",
            label=f"published {published(row)}",
        )
    for (seed, points), style in zip(seeds.items(), _styles(), strict=False):
        x, y = zip(*points, strict=True)
        axes.plot(x, y, marker="o", markersize=3, label=f"seed {seed}", **style)
        for best in (point for point in points if point[0] == kept.get(seed)):
            axes.plot(*best, "o", markersize=9, markerfacecolor="none", color=style["color"])
    axes.locator_params(
        axis="x", integer=max(point[0] for points in seeds.values() for point in points) >= 2
    )
    return picture_of(figure, axes, f"{metric} on {split}")


def _scores(logs: Logs) -> dict[tuple[str, str], dict[int, Points]]:
    found: dict[tuple[str, str], dict[int, Points]] = defaultdict(dict)
    for seed, lines in logs.items():
        points: dict[tuple[str, str], dict[float, float]] = defaultdict(dict)
        for line in lines:
            for metric, value in line["scores"].items() if line["event"] == "eval" else ():
                if value is not None and math.isfinite(value):
                    points[line["split"], metric][line["epoch"]] = value
        for key, values in points.items():
            found[key][seed] = sorted(values.items())
    return found


def _steps(lines: Sequence[Mapping[str, Any]], key: str) -> Points:
    """(step, value), finite ones only; a step that was done again after a resume counts as it was the last time."""
    found = {
        line["step"]: line[key]
        for line in lines
        if line["event"] == "step" and line.get(key) is not None
    }
    return [(step, value) for step, value in sorted(found.items()) if math.isfinite(value)]


def _binned(points: Points) -> list[tuple[float, float, float, float]]:
    """(mean step, mean, least, greatest) of each of at most BINS stretches."""
    size = math.ceil(len(points) / BINS)
    found = []
    for start in range(0, len(points), size):
        x, y = zip(*points[start : start + size], strict=True)
        found.append((sum(x) / len(x), sum(y) / len(y), min(y), max(y)))
    return found


def _thinned(points: Points) -> Points:
    return [*points[:: math.ceil(len(points) / (4 * BINS))], points[-1]]


def _styles() -> Iterator[dict[str, Any]]:
    return itertools.cycle(
        {"color": c, "linestyle": d, "linewidth": 1.6} for d in DASHES for c in COLORS
    )
