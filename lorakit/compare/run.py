"""The comparison of finished runs: their saved predictions are tested against the first run's."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit.compare.groups import Predictions, RunGroup, load_groups
from lorakit.compare.significance import Difference, over_examples, over_seeds
from lorakit.compare.table import EXAMPLES, SEEDS, Compared, RunComparison, corrected
from lorakit.metrics import Likelihood, Weighted
from lorakit.recipe.schema import Recipe
from lorakit.runs.predictions import reference_of

if TYPE_CHECKING:
    from numpy import ndarray

ROUNDING = 1e-6
"""Relative difference between a score and the recorded one that rounding explains."""
NOT_RESAMPLED = "it cannot be computed on thousands of resamples, so it is tested over seeds only"


def compare(
    paths: Sequence[Path],
    split: str | None = None,
    resamples: int = 10_000,
    seeds: Collection[int] | None = None,
) -> RunComparison:
    """Every run compared with the first.

    split: by default one that no epoch was chosen on, if there is one. seeds: those that are
    compared, of runs that have more; None: all. InputError and DataError:
    see `load_groups`.
    """
    split, groups = load_groups(paths, split, seeds)
    first = groups[0]
    task = first.recipe.task
    rows: list[Compared] = []
    left_out: dict[str, str] = {}
    for second in groups[1:]:
        tested = _tested(first, second, resamples)
        both = (*first.seeds, *second.seeds)
        recorded = [metric for seed in both for metric in seed.scores.get(split, {})]
        metrics = dict.fromkeys([*recorded, *tested])
        for metric in sorted(metrics, key=lambda metric: metric != task.primary):
            rows += _rows(first, second, split, metric, tested.get(metric))
            if metric not in tested:
                left_out[metric] = NOT_RESAMPLED
    notes = [*_unequal_seeds(groups), *_changed_predictions(rows, split), *_limits(groups, split)]
    return RunComparison(
        task=task.name,
        split=split,
        examples=len(first.predictions[0]),
        primary=task.primary,
        resamples=resamples,
        runs={one.name: str(one.folder) for one in groups},
        seeds={one.name: [seed.seed for seed in one.seeds] for one in groups},
        rows=corrected(rows),
        left_out=left_out,
        notes=list(dict.fromkeys(notes)),
    )


def _tested(first: RunGroup, second: RunGroup, resamples: int) -> dict[str, Difference]:
    """Metric -> its difference over examples, where the task can compute it on resamples."""
    task = first.recipe.task
    if not hasattr(task, "weighted"):
        return {}
    ids = list(first.predictions[0])
    # as many seeds as both runs have
    pairs = zip(first.predictions, second.predictions, strict=False)
    return over_examples([_weighted(task, ids, pair) for pair in pairs], len(ids), resamples)


def _rows(
    first: RunGroup, second: RunGroup, split: str, metric: str, tested: Difference | None
) -> list[Compared]:
    """The rows of one metric: over examples, and over seeds."""
    before = first.scores(split, metric)
    after = second.scores(split, metric)
    primary = metric == first.recipe.task.primary
    row = partial(Compared, second.name, first.name, metric, primary=primary)
    rows = []
    if tested is not None:
        count = min(len(before), len(after))
        scores = (statistics.fmean(after[:count]), statistics.fmean(before[:count]))
        rows.append(row(f"{len(first.predictions[0]):,} {EXAMPLES}", *scores, difference=tested))
    found = over_seeds(before, after)
    if found is not None:
        scores = (statistics.fmean(after), statistics.fmean(before))
        rows.append(row(f"{len(after)} + {len(before)} {SEEDS}", *scores, difference=found))
    return rows


def _unequal_seeds(groups: Sequence[RunGroup]) -> Iterator[str]:
    first = groups[0]
    for second in groups[1:]:
        if len(first.seeds) != len(second.seeds):
            count = min(len(first.seeds), len(second.seeds))
            yield (
                f"over examples: the first {count} of the seeds of {first.name} and of "
                f"{second.name}, because one has no more"
            )


def _changed_predictions(rows: Sequence[Compared], split: str) -> Iterator[str]:
    """Where the predictions do not give the recorded difference."""
    for row in rows:
        recorded = row.score - row.score_against
        found = row.difference.value
        # result.json has sums in another order
        tolerance = ROUNDING * max(1.0, abs(row.score_against))
        if math.isfinite(recorded) and abs(recorded - found) > tolerance:
            yield (
                f"{row.metric}: the difference is {recorded:.4f} in result.json, and {found:.4f} "
                f"by the predictions of {split}; one of them was changed, or was written by "
                "another version of lorakit"
            )


def _weighted(task: Any, ids: Sequence[str], pair: tuple[Predictions, Predictions]) -> Weighted:
    """The task's metrics, and those of each group of examples, on both runs' predictions.

    The weights are those of all examples of the first run in the order of `ids`, then of all
    examples of the second.
    """
    lines = [found[id] for found in pair for id in ids]
    # a group, such as the unseen categories of WebNLG, has metrics of its own
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

    likelihood = _likelihood(lines)

    def weighted(weights: ndarray) -> dict[str, ndarray]:
        found = {}
        for suffix, metric in metrics.items():
            own = weights[:, places[suffix]] if suffix else weights
            found |= {f"{key}{suffix}": value for key, value in metric(own).items()}
        if likelihood is not None:
            found |= likelihood(weights)
        return found

    return weighted


def _likelihood(lines: Sequence[Mapping[str, Any]]) -> Weighted | None:
    """The loss of the references; None where a line does not have it."""
    if not all(isinstance(line.get("nats"), (int, float)) and line.get("tokens") for line in lines):
        return None
    return Likelihood([line["nats"] for line in lines], [line["tokens"] for line in lines]).weigh()


def _limits(groups: Sequence[RunGroup], split: str) -> Iterator[str]:
    """What the numbers do not show."""
    alone = [one.name for one in groups if len(one.seeds) == 1]
    if alone:
        yield (
            f"n = 1 seed of {', '.join(alone)}: only the examples were resampled, not the "
            "training. Another seed may give another difference; this one is of these trained "
            "models, not of the methods"
        )
    if len(alone) < len(groups) - 1:
        yield (
            "over examples: these trained models, asked other examples. Over seeds: both trained "
            "again, asked these examples. A method is better where both hold"
        )
    if any(_was_chosen_on(one.recipe, split) for one in groups):
        yield (
            f"the best epoch was chosen on {split}, so the scores are above what other examples "
            "would give"
        )


def _was_chosen_on(recipe: Recipe, split: str) -> bool:
    return split in recipe.task.eval_splits[:1] and recipe.evaluate.keep == "best"
