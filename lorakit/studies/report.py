"""What a study has shown so far: where each run stands, its scores over the seeds, and a picture of one or two axes."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from lorakit.config import Config, first_problem
from lorakit.errors import DataError
from lorakit.report.picture import COLORS, Picture, figure_of, picture_of
from lorakit.report.table import NOTHING, Table, number
from lorakit.runs.result import Scores, write_whole

State = Literal["done", "running", "failed", "stopped", "waiting"]
"""stopped: it was cut off, and goes on from its checkpoint when the study is started again."""
STATES: tuple[State, ...] = ("done", "running", "failed", "stopped", "waiting")


class CellResult(Config):
    """One run of a study."""

    label: str
    recipe: str
    overrides: tuple[str, ...] = Field(strict=False)
    point: dict[str, Any]
    """Axis -> where this run stands on it."""
    run: str
    """Its run folder."""
    log: str | None
    state: State
    note: str = ""
    """Why it failed, or what it waits for."""
    attempts: int = 0
    metric: tuple[str, str] = Field(strict=False)
    """(split, metric) that it is known by."""
    seeds: tuple[int, ...] = Field(strict=False)
    scores: dict[int, Scores] = Field(default_factory=dict)
    """Seed -> its scores, for each that was trained to its end."""
    seconds: float = 0.0
    """Of those seeds."""
    trainable: int | None = None
    """Parameters; null until a run is whole."""

    def values(self, split: str, metric: str) -> list[float]:
        """Of the seeds that have it, in their order."""
        found = (
            self.scores[seed].get(split, {}).get(metric, math.nan)
            for seed in self.seeds
            if seed in self.scores
        )
        return [value for value in found if math.isfinite(value)]


class StudyResult(Config):
    """A study as it stands."""

    name: str
    file: str
    about: str = ""
    axes: tuple[str, ...] = Field(strict=False)
    cells: tuple[CellResult, ...] = Field(strict=False)

    def counts(self) -> dict[str, int]:
        """State -> runs, those that there are."""
        counted = Counter(cell.state for cell in self.cells)
        return {state: counted[state] for state in STATES if counted[state]}

    @classmethod
    def read(cls, path: Path) -> StudyResult:
        """DataError where the file is absent or damaged."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        except ValidationError as error:
            raise DataError(
                f"{path} is no study of lorakit, or damaged: {first_problem(error)}"
            ) from None


def state_table(study: StudyResult) -> Table:
    """A row per run: its state, its seeds, its score, and what is wrong with it."""
    rows = [
        (
            cell.label,
            cell.state,
            f"{len(cell.scores)}/{len(cell.seeds)}",
            _mean(cell, *cell.metric),
            _remark(cell),
        )
        for cell in study.cells
    ]
    counts = ", ".join(f"{n} {state}" for state, n in study.counts().items())
    return Table(
        ("run", "state", "seeds", _known_by(study), "note"),
        tuple(rows),
        f"{study.name}: {counts}",
        names=2,
    )


def _remark(cell: CellResult) -> str:
    where = f" (log: {cell.log})" if cell.state in ("failed", "stopped") and cell.log else ""
    return f"{cell.note}{where}"


def study_table(study: StudyResult) -> Table:
    """A row per run: a column per axis and key, then mean ± std over the seeds of every metric, and their number.

    Where runs train different numbers of parameters, these too.
    """
    keys = list(dict.fromkeys(key for cell in study.cells for key in cell.point)) or ["run"]
    metrics = list(dict.fromkeys(found for cell in study.cells for found in _metrics(cell)))
    splits = {split for split, _ in metrics}
    sizes = len({cell.trainable for cell in study.cells} - {None}) > 1
    titles = [metric if len(splits) == 1 else f"{split} {metric}" for split, metric in metrics]
    rows = [
        (
            *(_value(cell.point.get(key, cell.label)) for key in keys),
            *([_size(cell)] if sizes else []),
            *(_mean(cell, *m) for m in metrics),
            str(len(cell.scores)),
        )
        for cell in study.cells
    ]
    header = (*keys, *(["trainable"] if sizes else []), *titles, "n")
    caption = f"{study.name}: {study.about}" if study.about else study.name
    return Table(header, tuple(rows), f"{caption} (mean ± std over n seeds)", names=len(keys))


def _size(cell: CellResult) -> str:
    return NOTHING if cell.trainable is None else f"{cell.trainable:,}"


def _metrics(cell: CellResult) -> list[tuple[str, str]]:
    """The one that it is known by first."""
    found = [
        (split, metric)
        for scores in cell.scores.values()
        for split, of in scores.items()
        for metric in of
    ]
    return list(dict.fromkeys([*([cell.metric] if found else []), *found]))


def _known_by(study: StudyResult) -> str:
    names = {cell.metric[1] for cell in study.cells}
    return names.pop() if len(names) == 1 else "score"


def _mean(cell: CellResult, split: str, metric: str) -> str:
    values = cell.values(split, metric)
    if not values:
        return NOTHING
    mean = number(statistics.fmean(values))
    return f"{mean} ± {number(statistics.stdev(values))}" if len(values) > 1 else mean


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "+".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def picture(study: StudyResult) -> Picture | None:
    """The score over one axis, a line per value of the other; bars: std over the seeds. None for other than 1 or 2.

    A numeric axis comes before a named one, and is logarithmic where its values span a factor of eight.
    """
    scored = [cell for cell in study.cells if cell.values(*cell.metric)]
    if len(study.axes) not in (1, 2) or not scored:
        return None
    x, *rest = sorted(
        study.axes, key=lambda axis: not _numeric([cell.point[axis] for cell in study.cells])
    )
    figure, axes = figure_of(x, _known_by(study), width=4.8, height=3.0)
    ticks = list(dict.fromkeys(_value(cell.point[x]) for cell in study.cells))
    numeric = _numeric([cell.point[x] for cell in study.cells])
    for i, group in enumerate(_groups(scored, rest)):
        of = [cell.values(*cell.metric) for cell in group]
        places = [
            cell.point[x] if numeric else ticks.index(_value(cell.point[x])) for cell in group
        ]
        points = sorted(zip(places, map(statistics.fmean, of), map(_spread, of), strict=True))
        label = f"{rest[0]} {_value(group[0].point[rest[0]])}" if rest else None
        axes.errorbar(
            *zip(*points, strict=True),
            label=label,
            color=COLORS[i % len(COLORS)],
            marker="o",
            markersize=4,
            capsize=3,
            linewidth=1.6 if numeric else 0,
            elinewidth=1.2,
        )
    _scale(axes, [cell.point[x] for cell in study.cells] if numeric else [], ticks)
    return picture_of(
        figure, axes, f"{study.name}: {_known_by(study)} over {' and '.join([x, *rest])}"
    )


def _groups(cells: Sequence[CellResult], axes: Sequence[str]) -> list[list[CellResult]]:
    found: dict[tuple[str, ...], list[CellResult]] = {}
    for cell in cells:
        found.setdefault(tuple(_value(cell.point[axis]) for axis in axes), []).append(cell)
    return list(found.values())


def _scale(axes: Any, numbers: Sequence[float], ticks: Sequence[str]) -> None:
    if not numbers:
        axes.set_xticks(range(len(ticks)), ticks)
        return
    if min(numbers) > 0 and max(numbers) >= 8 * min(numbers):
        axes.set_xscale("log")
    places = sorted(set(numbers))
    if len(places) <= 12:
        axes.set_xticks(places, [_value(place) for place in places])
        axes.set_xticks([], minor=True)


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def write_study(folder: Path, study: StudyResult, drawn: bool = True) -> None:
    """study.json, and with `drawn` what is made from it: study.md with both tables, and scores.svg."""
    write_whole(folder / "study.json", study.model_dump_json(indent=2) + "\n")
    if not drawn:
        return
    found = picture(study)
    parts = [state_table(study).markdown(), study_table(study).markdown()]
    if found is not None:
        write_whole(folder / "scores.svg", found.document)
        parts.append(f"![{found.title}](scores.svg)")
    write_whole(folder / "study.md", f"# {study.name}\n\n" + "\n\n".join(parts) + "\n")
