"""The comparison of finished runs: their saved predictions are tested against the first run's."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit.compare.groups import Line, PredictedGroup, load_groups
from lorakit.compare.significance import Difference, over_examples, over_seeds
from lorakit.compare.table import Compared, Comparison, corrected
from lorakit.metrics import Weighted
from lorakit.recipe.schema import Recipe
from lorakit.runs.predictions import reference_of
from lorakit.runs.result import SeedResult

if TYPE_CHECKING:
    from numpy import ndarray

ROUNDING = 1e-6
"""Relative difference between a score and the recorded one that rounding explains."""
NOT_RESAMPLED = (
    "there is no form of it that can be computed on ten thousand resamples, so seeds alone tell"
)


def compare(paths: Sequence[Path], split: str | None = None, resamples: int = 10_000) -> Comparison:
    """Every run compared with the first.

    split: by default one that no epoch was chosen on, if there is one. InputError and DataError:
    see `load_groups`.
    """
    split, groups = load_groups(paths, split)
    task = groups[0].group.recipe.task
    pairs = [_Pair(groups[0], second, split, resamples) for second in groups[1:]]
    rows = [row for pair in pairs for row in pair.rows()]
    notes = [note for pair in pairs for note in pair.notes]
    return Comparison(
        task=task.name,
        split=split,
        examples=len(groups[0].predictions[0]),
        primary=task.primary,
        resamples=resamples,
        runs={one.name: str(one.group.folder) for one in groups},
        seeds={one.name: [seed.seed for seed in one.group.seeds] for one in groups},
        rows=corrected(rows),
        left_out={metric: NOT_RESAMPLED for pair in pairs for metric in pair.left_out},
        notes=[*dict.fromkeys(notes), *_limits(groups, split)],
    )


@dataclass
class _Pair:
    """The comparison of one run with the first."""

    first: PredictedGroup
    second: PredictedGroup
    split: str
    resamples: int
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Metrics that were not tested over examples."""

    def rows(self) -> list[Compared]:
        """The rows of every metric, the primary one first: over examples, and over seeds."""
        primary = self.first.group.recipe.task.primary
        tested = self._tested()
        metrics = sorted({**self._known(), **tested}, key=lambda metric: metric != primary)
        return [row for metric in metrics for row in self._rows_of(metric, tested.get(metric))]

    @property
    def _count(self) -> int:
        """The number of seeds that both runs have."""
        return min(len(self.first.group.seeds), len(self.second.group.seeds))

    def _tested(self) -> dict[str, Difference]:
        """Metric -> its difference over examples, where the task can compute it on resamples."""
        if len(self.first.group.seeds) != len(self.second.group.seeds):
            self.notes.append(
                f"over examples: the first {self._count} of the seeds of {self.first.name} and of "
                f"{self.second.name}, because one has no more"
            )
        task = self.first.group.recipe.task
        if not hasattr(task, "weighted"):
            return {}
        ids = [line["id"] for line in self.first.predictions[0]]
        both = zip(self.first.predictions, self.second.predictions, strict=False)
        weighted = [_weighted(task, ids, first, second) for first, second in both]
        return over_examples(weighted, len(ids), self.resamples)

    def _known(self) -> dict[str, None]:
        """The recorded metrics, in order."""
        seeds = (*self.first.group.seeds, *self.second.group.seeds)
        return {metric: None for seed in seeds for metric in seed.scores.get(self.split, {})}

    def _rows_of(self, metric: str, tested: Difference | None) -> list[Compared]:
        first = self._scores(self.first.group.seeds, metric)
        second = self._scores(self.second.group.seeds, metric)
        rows = []
        if tested is None:
            self.left_out.append(metric)
        else:
            paired = (first[: self._count], second[: self._count])
            self._check_recorded(metric, paired, tested.value)
            over = f"{len(self.first.predictions[0]):,} examples"
            rows.append(self._row(metric, over, paired, tested))
        if all(math.isfinite(score) for score in (*first, *second)):
            found = over_seeds(first, second)
            if found is not None:
                over = f"{len(second)} + {len(first)} seeds"
                rows.append(self._row(metric, over, (first, second), found))
        return rows

    def _scores(self, seeds: Sequence[SeedResult], metric: str) -> list[float]:
        return [seed.scores.get(self.split, {}).get(metric, math.nan) for seed in seeds]

    def _row(
        self,
        metric: str,
        over: str,
        scores: tuple[list[float], list[float]],
        difference: Difference,
    ) -> Compared:
        first, second = (statistics.fmean(group) for group in scores)
        return Compared(
            run=self.second.name,
            against=self.first.name,
            metric=metric,
            over=over,
            score=second,
            score_against=first,
            difference=difference,
            primary=metric == self.first.group.recipe.task.primary,
        )

    def _check_recorded(
        self, metric: str, scores: tuple[list[float], list[float]], found: float
    ) -> None:
        """Note where the predictions do not give the recorded difference."""
        first, second = scores
        recorded = statistics.fmean(second) - statistics.fmean(first)
        tolerance = ROUNDING * max(1.0, *map(abs, first))
        if math.isfinite(recorded) and abs(recorded - found) > tolerance:
            self.notes.append(
                f"{metric}: the difference is {recorded:.4f} in result.json, and {found:.4f} by "
                f"the predictions of {self.split}; one of them was changed, or was written by "
                "another version of lorakit"
            )


def _weighted(task: Any, ids: Sequence[str], first: list[Line], second: list[Line]) -> Weighted:
    """The task's metrics, and those of each group of examples, on both runs' predictions.

    The weights are those of all examples of the first run in the order of `ids`, then of all
    examples of the second.
    """
    by_id = [{line["id"]: line for line in lines} for lines in (first, second)]
    lines = [found[id] for found in by_id for id in ids]
    places: dict[str, list[int]] = {"": list(range(len(lines)))}
    for i, line in enumerate(lines):
        if line.get("group"):
            places.setdefault(f"_{line['group']}", []).append(i)
    metrics: Mapping[str, Weighted] = {
        suffix: task.weighted(
            [lines[i]["prediction"] for i in part], [reference_of(lines[i]) for i in part]
        )
        for suffix, part in places.items()
    }

    def weighted(weights: ndarray) -> dict[str, ndarray]:
        found = {}
        for suffix, metric in metrics.items():
            own = weights[:, places[suffix]] if suffix else weights
            found |= {f"{key}{suffix}": value for key, value in metric(own).items()}
        return found

    return weighted


def _limits(groups: Sequence[PredictedGroup], split: str) -> list[str]:
    """What the numbers do not show."""
    found = []
    alone = [one.name for one in groups if len(one.group.seeds) == 1]
    if alone:
        found.append(
            f"n = 1 seed of {', '.join(alone)}: only the examples were resampled, not the "
            "training. Another seed may give another difference; this one is of these trained "
            "models, not of the methods"
        )
    if len(alone) < len(groups) - 1:
        found.append(
            "over examples: these trained models, asked other examples. Over seeds: both trained "
            "again, asked these examples. A method is better where both hold"
        )
    if any(_was_chosen_on(one.group.recipe, split) for one in groups):
        found.append(
            f"the best epoch was chosen on {split}, so the scores are above what other examples "
            "would give"
        )
    return found


def _was_chosen_on(recipe: Recipe, split: str) -> bool:
    return split == recipe.task.eval_splits[0] and recipe.evaluate.keep == "best"
