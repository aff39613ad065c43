"""The comparison of finished runs: their saved predictions are tested against the first run's."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit.compare.groups import Predictions, RunGroup, load_groups
from lorakit.compare.significance import Difference, over_examples, over_seeds
from lorakit.compare.table import Compared, Comparison, corrected
from lorakit.metrics import Weighted
from lorakit.recipe.schema import Recipe
from lorakit.runs.predictions import reference_of

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
    task = groups[0].recipe.task
    pairs = [_Pair(groups[0], second, split, resamples) for second in groups[1:]]
    rows = [row for pair in pairs for row in pair.rows()]
    notes = [note for pair in pairs for note in pair.notes]
    return Comparison(
        task=task.name,
        split=split,
        examples=len(groups[0].predictions[0]),
        primary=task.primary,
        resamples=resamples,
        runs={one.name: str(one.folder) for one in groups},
        seeds={one.name: [seed.seed for seed in one.seeds] for one in groups},
        rows=corrected(rows),
        left_out={metric: NOT_RESAMPLED for pair in pairs for metric in pair.left_out},
        notes=[*dict.fromkeys(notes), *_limits(groups, split)],
    )


@dataclass
class _Pair:
    """The comparison of one run with the first."""

    first: RunGroup
    second: RunGroup
    split: str
    resamples: int
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Metrics that were not tested over examples."""

    def rows(self) -> list[Compared]:
        """The rows of every metric, the primary one first: over examples, and over seeds."""
        primary = self.first.recipe.task.primary
        tested = self._tested()
        seeds = (*self.first.seeds, *self.second.seeds)
        recorded = [metric for seed in seeds for metric in seed.scores.get(self.split, {})]
        metrics = sorted(dict.fromkeys([*recorded, *tested]), key=lambda metric: metric != primary)
        return [row for metric in metrics for row in self._rows_of(metric, tested.get(metric))]

    @property
    def _count(self) -> int:
        """The number of seeds that both runs have."""
        return min(len(self.first.seeds), len(self.second.seeds))

    def _tested(self) -> dict[str, Difference]:
        """Metric -> its difference over examples, where the task can compute it on resamples."""
        if len(self.first.seeds) != len(self.second.seeds):
            self.notes.append(
                f"over examples: the first {self._count} of the seeds of {self.first.name} and of "
                f"{self.second.name}, because one has no more"
            )
        task = self.first.recipe.task
        if not hasattr(task, "weighted"):
            return {}
        ids = list(self.first.predictions[0])
        both = zip(self.first.predictions, self.second.predictions, strict=False)
        weighted = [_weighted(task, ids, pair) for pair in both]
        return over_examples(weighted, len(ids), self.resamples)

    def _rows_of(self, metric: str, tested: Difference | None) -> list[Compared]:
        first = self._scores(self.first, metric)
        second = self._scores(self.second, metric)
        rows = []
        if tested is None:
            self.left_out.append(metric)
        else:
            over = f"{len(self.first.predictions[0]):,} examples"
            row = self._row(metric, over, tested, (first[: self._count], second[: self._count]))
            self._check_recorded(row)
            rows.append(row)
        if all(math.isfinite(score) for score in (*first, *second)):
            found = over_seeds(first, second)
            if found is not None:
                over = f"{len(second)} + {len(first)} seeds"
                rows.append(self._row(metric, over, found, (first, second)))
        return rows

    def _scores(self, group: RunGroup, metric: str) -> list[float]:
        return [seed.scores.get(self.split, {}).get(metric, math.nan) for seed in group.seeds]

    def _row(
        self, metric: str, over: str, found: Difference, scores: tuple[list[float], list[float]]
    ) -> Compared:
        return Compared(
            run=self.second.name,
            against=self.first.name,
            metric=metric,
            over=over,
            score=statistics.fmean(scores[1]),
            score_against=statistics.fmean(scores[0]),
            difference=found,
            primary=metric == self.first.recipe.task.primary,
        )

    def _check_recorded(self, row: Compared) -> None:
        """Note where the predictions do not give the recorded difference."""
        recorded = row.score - row.score_against
        found = row.difference.value
        tolerance = ROUNDING * max(1.0, abs(row.score_against))
        if math.isfinite(recorded) and abs(recorded - found) > tolerance:
            self.notes.append(
                f"{row.metric}: the difference is {recorded:.4f} in result.json, and {found:.4f} "
                f"by the predictions of {self.split}; one of them was changed, or was written by "
                "another version of lorakit"
            )


def _weighted(task: Any, ids: Sequence[str], pair: tuple[Predictions, Predictions]) -> Weighted:
    """The task's metrics, and those of each group of examples, on both runs' predictions.

    The weights are those of all examples of the first run in the order of `ids`, then of all
    examples of the second.
    """
    lines = [found[id] for found in pair for id in ids]
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


def _limits(groups: Sequence[RunGroup], split: str) -> list[str]:
    """What the numbers do not show."""
    found = []
    alone = [one.name for one in groups if len(one.seeds) == 1]
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
    if any(_was_chosen_on(one.recipe, split) for one in groups):
        found.append(
            f"the best epoch was chosen on {split}, so the scores are above what other examples "
            "would give"
        )
    return found


def _was_chosen_on(recipe: Recipe, split: str) -> bool:
    return split == recipe.task.eval_splits[0] and recipe.evaluate.keep == "best"
