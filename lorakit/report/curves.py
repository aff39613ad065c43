"""Curves and heat maps of a run as inline SVG: no file, no script, no font is fetched."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorakit.report.result import Result, Row, summary
from lorakit.report.table import published

Logs = Mapping[int, Sequence[Mapping[str, Any]]]
"""seed -> the lines of its metrics.jsonl"""
Points = Sequence[tuple[float, float]]

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#333333")
"""Okabe and Ito's, which the colour-blind tell apart; past seven seeds the dashes differ."""
DASHES = ("-", "--", ":")
BINS = 120
"""Points of a curve: more are not seen, and a long run has a hundred thousand steps."""
BARS = 24
"""Weights in a bar chart, the largest first."""


@dataclass(frozen=True)
class Picture:
    """An <svg> element and what it shows, which is its caption and what a screen reader says."""

    title: str
    svg: str
    wide: bool = False
    """Not to be made smaller on a small screen: it is scrolled there."""


def loss_curve(logs: Logs) -> list[Picture]:
    """Mean loss over a hundredth of the steps, a line per seed, in the band between the least and the greatest."""
    seeds = {seed: points for seed, lines in logs.items() if (points := _steps(lines, "loss"))}
    if not seeds:
        return []
    figure, axes = _figure("optimizer step", "training loss")
    for (seed, points), style in zip(seeds.items(), _styles(), strict=False):
        x, mean, low, high = zip(*_binned(points), strict=True)
        axes.fill_between(x, low, high, color=style["color"], alpha=0.35 / (1 + len(seeds)), linewidth=0)
        axes.plot(x, mean, label=f"seed {seed}", **style)
    return [_picture(figure, axes, "Training loss")]


def rate_curve(logs: Logs) -> list[Picture]:
    """The learning rate, which all seeds share, of the seed that went on longest."""
    points = max((_steps(lines, "learning_rate") for lines in logs.values()), key=len, default=[])
    if not points:
        return []
    figure, axes = _figure("optimizer step", "learning rate")
    x, y = zip(*_thinned(points), strict=True)
    axes.plot(x, y, color=COLORS[0], linewidth=1.8)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    return [_picture(figure, axes, "Learning rate")]


def score_curves(logs: Logs, result: Result) -> list[Picture]:
    """A picture per split and metric, a line per seed. Ring: the state that was kept; band: the published number."""
    rows = {(row.split, row.metric): row for row in summary(result)}
    kept = {seed.seed: seed.best_epoch for seed in result.seeds}
    return [_score_curve(key, seeds, rows.get(key), kept) for key, seeds in _scores(logs).items()]


def _score_curve(
    key: tuple[str, str], seeds: Mapping[int, Points], row: Row | None, kept: Mapping[int, float | None]
) -> Picture:
    split, metric = key
    figure, axes = _figure("epoch", metric)
    if row is not None and row.published is not None and row.comparable:
        spread = row.published_spread or 0.0
        axes.axhspan(row.published - spread, row.published + spread, color="#000000", alpha=0.08, linewidth=0)
        axes.axhline(row.published, color="#555555", linewidth=1, linestyle="--", label=f"published {published(row)}")
    for (seed, points), style in zip(seeds.items(), _styles(), strict=False):
        x, y = zip(*points, strict=True)
        axes.plot(x, y, marker="o", markersize=3, label=f"seed {seed}", **style)
        best = [point for point in points if kept.get(seed) is not None and math.isclose(point[0], kept[seed] or 0.0)]
        if best:
            axes.plot(*best[-1], "o", markersize=9, markerfacecolor="none", color=style["color"])
    axes.locator_params(axis="x", integer=max(point[0] for points in seeds.values() for point in points) > 2)
    return _picture(figure, axes, f"{metric} on {split}")


def change_maps(result: Result) -> list[Picture]:
    """||dW|| / ||W||, mean over the seeds: layers x weights as a heat map, weights without a layer number as bars."""
    norms: dict[str, list[float]] = defaultdict(list)
    for seed in result.seeds:
        for name, value in seed.delta_norms.items():
            norms[name].append(value)
    cells: dict[tuple[int, str], float] = {}
    others: dict[str, float] = {}
    for name, values in norms.items():
        mean = sum(values) / len(values)
        if layer := re.fullmatch(r"(.*?)\.(\d+)\.(.+)", name):
            cells[int(layer[2]), f"{layer[1]}.*.{layer[3]}"] = mean
        else:
            others[name] = mean
    return [*([_heat_map(cells)] if cells else []), *([_bars(others)] if others else [])]


def _heat_map(cells: Mapping[tuple[int, str], float]) -> Picture:
    import matplotlib

    rows, columns = sorted({row for row, _ in cells}), list(dict.fromkeys(column for _, column in cells))
    grid = [[cells.get((row, column), math.nan) for column in columns] for row in rows]
    known = [value for value in cells.values() if value > 0]
    wide = bool(known) and max(known) > 50 * min(known)
    figure, axes = _figure(
        "", "layer", width=min(9.0, 2.4 + 0.8 * len(columns)), height=min(9.0, 1.5 + 0.24 * len(rows))
    )
    # drawn, and with few enough colours that the bar is drawn too: a picture within the picture would be a data: link
    colors = matplotlib.colormaps["viridis"].resampled(40)
    image = axes.pcolormesh(grid, cmap=colors, norm="log" if wide else "linear", edgecolors="white", linewidth=0.8)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    every = math.ceil(len(rows) / 32)
    axes.set_yticks([i + 0.5 for i in range(0, len(rows), every)], [str(row) for row in rows[::every]])
    upright = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len(columns) > 3 else {}
    axes.set_xticks([j + 0.5 for j in range(len(columns))], [_plain(tail) for tail in tails(columns)], **upright)
    if len(columns) <= 8 and len(rows) <= 24:
        _write_in(axes, image, grid)
    bar = figure.colorbar(image, ax=axes, label="‖ΔW‖ / ‖W‖")
    bar.outline.set_visible(False)
    bar.solids.set_edgecolor("face")  # else hair lines stand between its colours
    return _picture(figure, axes, "Relative size of the change, by layer and weight", wide=len(columns) > 4)


def _write_in(axes: Any, image: Any, grid: Sequence[Sequence[float]]) -> None:
    for (i, row), j in itertools.product(enumerate(grid), range(len(grid[0]))):
        if not math.isnan(row[j]):
            ink = "black" if image.norm(row[j]) > 0.6 else "white"
            axes.text(j + 0.5, i + 0.5, f"{row[j]:.2g}", ha="center", va="center", color=ink, fontsize=7)


def _bars(norms: Mapping[str, float]) -> Picture:
    shown = sorted(norms.items(), key=lambda item: -item[1])[:BARS][::-1]
    figure, axes = _figure("‖ΔW‖ / ‖W‖", "", width=5.6, height=1.0 + 0.26 * len(shown))
    axes.barh(range(len(shown)), [value for _, value in shown], color=COLORS[0], height=0.7)
    axes.set_yticks(range(len(shown)), [_plain(name) for name in tails([n for n, _ in shown], least=2)])
    axes.grid(visible=False, axis="y")
    left_out = f"; {len(norms) - len(shown)} smaller ones are left out" if len(norms) > len(shown) else ""
    return _picture(figure, axes, f"Relative size of the change, weights outside of the layers{left_out}")


def tails(names: Sequence[str], least: int = 1) -> list[str]:
    """The shortest end of each dotted name, of `least` parts or more, that no other name shares."""
    parts = [name.split(".") for name in names]
    ends = Counter(tuple(p[-n:]) for p in parts for n in range(1, len(p) + 1))
    return [
        ".".join(next((p[-n:] for n in range(least, len(p) + 1) if ends[tuple(p[-n:])] == 1), p)).removeprefix("*.")
        for p in parts
    ]


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
    found = {line["step"]: line[key] for line in lines if line["event"] == "step" and line.get(key) is not None}
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


def _styles() -> Any:
    return itertools.cycle({"color": c, "linestyle": d, "linewidth": 1.6} for d in DASHES for c in COLORS)


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # a name is not a formula


def _figure(x: str, y: str, width: float = 4.8, height: float = 3.0) -> tuple[Any, Any]:
    """Small enough that its letters are still read on a phone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(_plain(x))
    axes.set_ylabel(_plain(y))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _picture(figure: Any, axes: Any, title: str, wide: bool = False) -> Picture:
    import matplotlib

    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(frameon=False, fontsize="small")
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": title}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Picture(title, _inline(out.getvalue(), title), wide)


def _inline(text: str, title: str) -> str:
    """The <svg> element alone: no header, no name spaces (HTML knows them), and ids that no other picture has."""
    import hashlib
    import html

    own = "p" + hashlib.blake2b(title.encode(), digest_size=4).hexdigest()
    drawing = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL
    )
    drawing = re.sub(r' xmlns(:xlink)?="[^"]*"', "", drawing).replace("xlink:href=", "href=")
    drawing = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{own}-", drawing)
    return drawing.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)
