"""`lorakit compare`: the saved predictions of finished runs, tested against those of the first one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorakit.compare.significance import over_examples, over_seeds
from lorakit.compare.table import Compared, Comparison, corrected
from lorakit.errors import DataError, InputError
from lorakit.metrics import Weighted
from lorakit.recipe.load import compose
from lorakit.recipe.schema import Recipe
from lorakit.runs.folder import is_run, is_seed, seed_folder
from lorakit.runs.predictions import checked_answer, json_lines, reference_of
from lorakit.runs.rescore import SAME
from lorakit.runs.result import Result, SeedResult


@dataclass(frozen=True)
class Group:
    """A finished run: its seeds in order, and what they answered, line by line."""

    folder: Path
    recipe: Recipe
    result: Result
    seeds: tuple[SeedResult, ...]
    answers: tuple[list[dict[str, Any]], ...] = ()


def compare(paths: Sequence[Path], split: str | None = None, resamples: int = 10_000) -> Comparison:
    """Every run beside the first. split: by default a split that no epoch was chosen on, if there is one.

    InputError: less than two runs, or one twice. DataError: runs of different tasks, predictions that are missing, of
    other examples, or changed.
    """
    if len({path.resolve() for path in paths}) < max(2, len(paths)):
        raise InputError("give two runs or more, each once: lorakit compare RUN RUN")
    groups = [_open(path) for path in paths]
    task = groups[0].recipe.task
    for group in groups[1:]:
        if group.recipe.task.name != task.name:
            raise DataError(
                f"{groups[0].folder} is of the task {task.name}, {group.folder} of {group.recipe.task.name}; "
                "only runs of one task can be compared"
            )
    split = split or (*task.final_splits, *task.eval_splits)[0]
    groups = [_with_answers(group, split) for group in groups]
    for group in groups[1:]:
        _refuse_other_examples(groups[0], group, split)
    names = _names(groups)
    notes: list[str] = []
    left_out: dict[str, str] = {}
    rows: list[Compared] = []
    for name, group in zip(names[1:], groups[1:], strict=True):
        rows += _rows((names[0], groups[0]), (name, group), split, resamples, notes, left_out)
    return Comparison(
        task=task.name,
        split=split,
        examples=len(groups[0].answers[0]),
        primary=task.primary,
        resamples=resamples,
        runs={name: str(group.folder) for name, group in zip(names, groups, strict=True)},
        seeds={
            name: [s.seed for s in group.seeds] for name, group in zip(names, groups, strict=True)
        },
        rows=corrected(rows),
        left_out=left_out,
        notes=[*dict.fromkeys(notes), *_limits(names, groups, split)],
    )


def _open(path: Path) -> Group:
    run = path.parent if is_seed(path) else path
    if not is_run(run):
        raise InputError(
            f"{path} is no run folder; give one that `lorakit train` wrote, or a seed of it"
        )
    result = Result.read(run / "result.json")
    recipe = _asked(result, run)
    seeds = tuple(sorted(result.seeds, key=lambda s: s.seed))
    if run != path:
        seeds = tuple(s for s in seeds if path.name == f"seed{s.seed}")
        if not seeds:
            raise DataError(
                f"{run}/result.json has nothing of {path.name}; was it trained to its end?"
            )
    return Group(path, recipe, result, seeds)


def _asked(result: Result, run: Path) -> Recipe:
    """Of the run's recipe what its scores depend on; the rest may be of an older lorakit."""
    said = result.recipe_values
    try:
        data = {"limit": said["data"]["limit"]}
        parts = {
            "task": said["task"],
            "data": data,
            "model": {"name": "-"},
            "method": {"name": "full"},
        }
        keep = said["evaluate"]["keep"]
    except (LookupError, TypeError):
        raise DataError(
            f"{run}/result.json does not hold its recipe, so what was asked is not known"
        ) from None
    return compose(parts | {"evaluate": {"keep": keep}})


def _with_answers(group: Group, split: str) -> Group:
    run = group.folder.parent if is_seed(group.folder) else group.folder
    found = []
    for seed in group.seeds:
        folder = seed_folder(run, seed.seed) / "predictions"
        file = folder / f"{split}.jsonl"
        if not file.is_file():
            there = ", ".join(sorted(p.stem for p in folder.glob("*.jsonl"))) or "none"
            raise DataError(
                f"{file} is not there, so the split {split} cannot be compared (there: {there})"
            )
        lines = [checked_answer(line, where) for where, line in json_lines(file)]
        if not lines or len({line["id"] for line in lines}) < len(lines):
            raise DataError(
                f"{file} {'holds an id twice' if lines else 'is empty'}; each example is answered once"
            )
        found.append(lines)
    return Group(group.folder, group.recipe, group.result, group.seeds, tuple(found))


def _refuse_other_examples(first: Group, second: Group, split: str) -> None:
    wanted = {line["id"]: reference_of(line) for line in first.answers[0]}
    for group, lines in [(g, a) for g in (first, second) for a in g.answers]:
        found = {line["id"]: reference_of(line) for line in lines}
        if found.keys() != wanted.keys():
            odd = min(found.keys() ^ wanted.keys())
            limits = [g.recipe.data.limit.get(split) for g in (first, group)]
            why = f" (data.limit.{split}: {limits[0] or 'none'} and {limits[1] or 'none'})" * (
                limits[0] != limits[1]
            )
            raise DataError(
                f"{first.folder} and {group.folder} answer different examples of {split}: {len(wanted)} and "
                f"{len(found)}{why}, and {odd!r} is in one only; evaluate both on the same"
            )
        if other := [id for id in wanted if found[id] != wanted[id]]:
            raise DataError(
                f"{first.folder} and {group.folder} have different references for {other[0]!r} of {split} and "
                f"{len(other) - 1} more: their data are not the same"
            )


def _names(groups: Sequence[Group]) -> list[str]:
    """The method, where that tells the runs apart; else the folder."""
    methods = [
        f"{method['name']} r={method['r']}" if "r" in method else str(method["name"])
        for method in (group.result.method for group in groups)
    ]
    if len(set(methods)) == len(groups):
        return methods
    folders = [
        f"{g.folder.parent.name}/{g.folder.name}" if is_seed(g.folder) else g.folder.name
        for g in groups
    ]
    return folders if len(set(folders)) == len(groups) else [str(g.folder) for g in groups]


def _rows(
    first: tuple[str, Group],
    second: tuple[str, Group],
    split: str,
    resamples: int,
    notes: list[str],
    left_out: dict[str, str],
) -> list[Compared]:
    (name, a), (other, b) = first, second
    pairs = min(len(a.seeds), len(b.seeds))
    if len(a.seeds) != len(b.seeds):
        notes.append(
            f"over examples: the first {pairs} of the seeds of {name} and of {other}, as one has no more"
        )
    ids = [line["id"] for line in a.answers[0]]
    n, task = len(ids), a.recipe.task
    both = zip(a.answers[:pairs], b.answers[:pairs], strict=True)
    weighted = (
        [_weighted(task, ids, *answers) for answers in both] if hasattr(task, "weighted") else []
    )
    tested = over_examples(weighted, n, resamples) if weighted else {}
    primary = task.primary
    known = list(
        dict.fromkeys(metric for s in (*a.seeds, *b.seeds) for metric in s.scores.get(split, {}))
    )
    rows = []
    for metric in sorted({**dict.fromkeys(known), **tested}, key=lambda m: m != primary):
        scores = [[s.scores.get(split, {}).get(metric, math.nan) for s in g.seeds] for g in (a, b)]
        if metric in tested:
            _remark(metric, scores, pairs, tested[metric].value, split, notes)
            parts = [group[:pairs] for group in scores]
            rows.append(
                _row(other, name, metric, f"{n:,} examples", parts, tested[metric], primary)
            )
        else:
            left_out[metric] = (
                "there is no form of it that can be computed on ten thousand resamples, so seeds alone tell"
            )
        if (again := _seeds(scores)) is not None:
            over = f"{len(scores[1])} + {len(scores[0])} seeds"
            rows.append(_row(other, name, metric, over, scores, again, primary))
    return rows


def _seeds(scores: Sequence[Sequence[float]]) -> Any:
    return (
        None
        if any(not math.isfinite(v) for group in scores for v in group)
        else over_seeds(scores[0], scores[1])
    )


def _row(
    run: str, against: str, metric: str, over: str, scores: Any, difference: Any, primary: str
) -> Compared:
    first, second = (statistics.fmean(group) for group in scores)
    return Compared(run, against, metric, over, second, first, difference, metric == primary)


def _remark(
    metric: str,
    scores: Sequence[Sequence[float]],
    pairs: int,
    found: float,
    split: str,
    notes: list[str],
) -> None:
    recorded = statistics.fmean(scores[1][:pairs]) - statistics.fmean(scores[0][:pairs])
    if math.isfinite(recorded) and abs(recorded - found) > SAME * max(
        1.0, *map(abs, scores[0][:pairs])
    ):
        notes.append(
            f"{metric}: result.json has a difference of {recorded:.4f}, and the predictions of {split} give "
            f"{found:.4f}; one of them was changed, or is of another version of lorakit"
        )


def _weighted(task: Any, ids: Sequence[str], *answers: list[dict[str, Any]]) -> Weighted:
    """The task's metrics, and those of each group of examples, on both answers to every example, in the order of `ids`:
    all of the one, then all of the other."""
    by_id = [{line["id"]: line for line in said} for said in answers]
    lines = [said[id] for said in by_id for id in ids]
    parts: dict[str, list[int]] = {"": list(range(len(lines)))}
    for i, line in enumerate(lines):
        if line.get("group"):
            parts.setdefault(f"_{line['group']}", []).append(i)
    of = {
        end: task.weighted(
            [lines[i]["prediction"] for i in places], [reference_of(lines[i]) for i in places]
        )
        for end, places in parts.items()
    }

    def weighted(weights: Any) -> dict[str, Any]:
        return {
            f"{key}{end}": value
            for end, part in of.items()
            for key, value in part(weights if not end else weights[:, parts[end]]).items()
        }

    return weighted


def _limits(names: Sequence[str], groups: Sequence[Group], split: str) -> list[str]:
    """What the numbers do not say."""
    found = []
    if alone := [name for name, group in zip(names, groups, strict=True) if len(group.seeds) == 1]:
        found.append(
            f"n = 1 seed of {', '.join(alone)}: only the examples were resampled, not the training. Another seed may "
            "give another difference; this one is of these trained models, not of the methods"
        )
    if len(alone) < len(groups) - 1:
        found.append(
            "over examples: these trained models, asked other examples. Over seeds: both trained again, asked these "
            "examples. A method is better where both hold"
        )
    chosen = [
        group for group in groups if split == group.recipe.task.eval_splits[0] and _chooses(group)
    ]
    if chosen:
        found.append(
            f"the best epoch was chosen on {split}, so the scores are above what other examples would give"
        )
    return found


def _chooses(group: Group) -> bool:
    return group.recipe.evaluate.keep == "best"
