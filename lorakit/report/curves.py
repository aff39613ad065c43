"""Curves and heat maps as inline SVG."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

Logs = Mapping[int, Sequence[Mapping[str, Any]]]
"""seed -> the lines of its metrics.jsonl"""

COLORS = ("#0b6e99", "#c2571a", "#3a7d44", "#7b4ea3", "#a83250", "#6b6b6b")


def loss_curve(logs: Logs) -> str:
    """Loss of every step (pale) and its running mean over a fiftieth of the steps, a line per seed."""
    figure, axes = _figure("optimizer step", "training loss")
    for (seed, lines), color in zip(logs.items(), _cycle(len(logs)), strict=True):
        steps = [(line["step"], line["loss"]) for line in lines if line["event"] == "step"]
        if not steps:
            continue
        x, y = zip(*steps, strict=True)
        axes.plot(x, y, color=color, alpha=0.2, linewidth=0.8)
        axes.plot(x, _smooth(y, max(1, len(y) // 50)), color=color, linewidth=1.6, label=f"seed {seed}")
    return _svg(figure, axes, "Training loss by optimizer step")


def rate_curve(logs: Logs) -> str:
    """The learning rate of every step (the same for all seeds)."""
    figure, axes = _figure("optimizer step", "learning rate")
    lines = next(iter(logs.values()), ())
    steps = [(line["step"], line["learning_rate"]) for line in lines if line["event"] == "step"]
    if steps:
        x, y = zip(*steps, strict=True)
        axes.plot(x, y, color=COLORS[0], linewidth=1.6)
    return _svg(figure, axes, "Learning rate by optimizer step")


def score_curves(logs: Logs) -> list[str]:
    """A picture per evaluation split and metric, a line per seed."""
    found: dict[tuple[str, str], dict[int, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for seed, lines in logs.items():
        for line in lines:
            for metric, value in line.get("scores", {}).items() if line["event"] == "eval" else ():
                found[line["split"], metric][seed].append((line["epoch"], value))
    pictures = []
    for (split, metric), seeds in found.items():
        figure, axes = _figure("epoch", metric)
        for (seed, points), color in zip(seeds.items(), _cycle(len(seeds)), strict=True):
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=color, marker="o", markersize=4, linewidth=1.6, label=f"seed {seed}")
        pictures.append(_svg(figure, axes, f"{metric} on {split} by epoch"))
    return pictures


def heat_map(norms: Mapping[str, float]) -> str:
    """||dW|| / ||W||, a row per layer and a column per kind of weight; empty for names without a layer number."""
    cells: dict[tuple[str, int], float] = {}
    for name, value in norms.items():
        match = re.match(r"(.*?)\.(\d+)\.(.*)", name)
        if match:
            cells[match[3], int(match[2])] = value
    if not cells:
        return ""
    columns, rows = sorted({c for c, _ in cells}), sorted({r for _, r in cells})
    figure, axes = _figure("", "layer", height=max(2.2, 0.28 * len(rows) + 1.2))
    grid = [[cells.get((c, r), float("nan")) for c in columns] for r in rows]
    image = axes.imshow(grid, aspect="auto", cmap="viridis")
    every = max(1, len(rows) // 12)
    axes.set_yticks(range(0, len(rows), every), [str(r) for r in rows[::every]])
    rotation = 0 if len(columns) <= 2 else 30
    axes.set_xticks(
        range(len(columns)), [_tail(c) for c in columns], rotation=rotation, ha="center" if not rotation else "right"
    )
    figure.colorbar(image, ax=axes, label="‖dW‖ / ‖W‖")
    return _svg(figure, axes, "Relative size of the change by layer and weight")


def _tail(name: str) -> str:
    part = re.search(r"\[(\w+)\]$", name)
    return f"{name.split('[')[0].rsplit('.', 1)[-1]} {part[1]}" if part else ".".join(name.rsplit(".", 2)[-2:])


def _smooth(values: Sequence[float], width: int) -> list[float]:
    total, out = 0.0, []
    for i, value in enumerate(values):
        total += value - (values[i - width] if i >= width else 0.0)
        out.append(total / min(i + 1, width))
    return out


def _cycle(n: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(n)]


def _figure(x: str, y: str, height: float = 3.0) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _svg(figure: Any, axes: Any, title: str) -> str:
    """One <svg> element with a name that a screen reader says, and without the file header of a stand-alone picture."""
    import matplotlib

    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(frameon=False, fontsize="small")
    if axes.images:
        axes.grid(visible=False)
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": title}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    drawing = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return drawing.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
