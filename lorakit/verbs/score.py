"""`lorakit score`: a task's metrics on files of predictions, against given references or the task's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lorakit.errors import DataError, RecipeError
from lorakit.evaluation.answers import Answer, read_splits, score_answers
from lorakit.metrics import Failed, failures
from lorakit.recipe.load import compose
from lorakit.runs.predictions import Said, by_id, field_of, id_of, json_lines, read_predictions
from lorakit.tasks import Example, Head, Task, finite_number, given_label, tasks


@dataclass(frozen=True)
class Scored:
    """scores (NaN: it failed), the number of examples, how the scorer works, what was noticed, and what failed."""

    scores: dict[str, float]
    n: int
    protocol: str
    notes: list[str] = field(default_factory=list)
    failed: Failed = field(default_factory=dict)


def score_files(task: str, predictions: Path, references: Path) -> Scored:
    """By id where both files have ids, else line by line. DataError with file and line for what cannot be read or does
    not pair up."""
    asked = _by_name(task)
    said = [
        Said(w, id_of(line), field_of(line, ("prediction",), w))
        for w, line in json_lines(predictions)
    ]
    names = ("reference", "references")
    wanted = [Said(w, id_of(line), field_of(line, names, w)) for w, line in json_lines(references)]
    if len(said) != len(wanted):
        raise DataError(
            f"{predictions} has {len(said)} predictions and {references} {len(wanted)} references"
        )
    if any(one.id is not None for one in said) and all(one.id is not None for one in wanted):
        ids = [str(one.id) for one in wanted]
        if len(set(ids)) < len(ids):
            raise DataError(
                f"{references}: an id is given twice; predictions are paired with references by id"
            )
        found = by_id(said, ids, predictions, str(references))
        said = said if found is None else [found[id] for id in ids]
    answers = [_answer(asked, one) for one in said]
    with failures() as failed:
        scores = asked.score(answers, [_reference(asked, one) for one in wanted])
    return Scored(scores, len(said), asked.protocol, failed=failed)


def score_values(
    task: str, predictions: Sequence[Any], references: Sequence[Any]
) -> dict[str, float]:
    """As `score_files`, of values in memory; errors name them by their number, from 1."""
    asked = _by_name(task)
    if len(predictions) != len(references):
        raise DataError(f"{len(predictions)} predictions and {len(references)} references")
    said = [
        _answer(asked, Said(f"prediction {number}", None, value))
        for number, value in enumerate(predictions, 1)
    ]
    wanted = [
        _reference(asked, Said(f"reference {number}", None, value))
        for number, value in enumerate(references, 1)
    ]
    return asked.score(said, wanted)


def score_split(task: str, predictions: Path, split: str, overrides: Sequence[str] = ()) -> Scored:
    """Against the task's own references of a split (`data.path=...` in overrides says where they are).

    The file holds one prediction per example, or one per row of the official file (an example that has several rows
    takes the last, as the reference code has it), or lines with the examples' `id`. DataError: it is none of these.
    """
    parts = {"task": {"name": task}, "model": {"name": "-"}, "method": {"name": "full"}}
    recipe = compose(parts, overrides)
    examples = read_splits(recipe.task, recipe.data, [split])[split]
    said = read_predictions(predictions)
    notes: list[str] = []
    rows = recipe.task.rows_of(split, recipe.data)
    found = _paired(said, examples, rows, predictions, f"the split {split}", notes)
    task_ = recipe.task
    answers = [
        Answer(
            e.id,
            _read(task_, found[e.id]),
            task_.to_reference(e),
            found[e.id].value,
            e.text,
            e.group,
        )
        for e in examples
    ]
    failed: Failed = {}
    scores = score_answers(task_, answers, failed)
    return Scored(scores, len(answers), task_.protocol, notes, failed)


def _read(task: Task, said: Said) -> Any:
    """A text is read as the model's output would be; a label or a number is an answer already."""
    if task.head is not Head.CAUSAL:
        return _answer(task, said)
    if isinstance(said.value, (bool, int, float)):
        raise _no_text(said)
    try:
        return task.to_prediction(said.value)
    except DataError as error:
        raise DataError(f"{said.where}: {error}") from None


def _answer(task: Task, said: Said) -> Any:
    """DataError, with file and line: a label that is not one of the task's, a value that is not a number, no text."""
    if task.head is Head.CLASSIFICATION:
        return task.labels[given_label(said.value, task.labels, said.where)]
    if task.head is Head.REGRESSION:
        return finite_number(said.value, said.where)
    if isinstance(said.value, (bool, int, float)) and not task.choices:
        raise _no_text(said)
    return said.value


def _reference(task: Task, wanted: Said) -> Any:
    """As `_answer`; of texts there may be a list."""
    texts = wanted.value if isinstance(wanted.value, list) else [wanted.value]
    if task.head is not Head.CAUSAL:
        return _answer(task, wanted)
    for text in texts:
        _answer(task, Said(wanted.where, wanted.id, text))
    return wanted.value


def _no_text(said: Said) -> DataError:
    return DataError(
        f'{said.where}: {said.value!r} is not a text; write it in quotes, as "{said.value}"'
    )


def _by_name(task: str) -> Task:
    plugin = tasks.get(task.split("/")[0])
    try:
        return plugin.model_validate({"name": task})
    except ValidationError as error:
        missing = [str(e["loc"][-1]) for e in error.errors() if e["type"] == "missing"]
        why = (
            f"it needs {', '.join(missing)}"
            if missing
            else error.errors()[0]["msg"].removeprefix("Value error, ")
        )
        raise RecipeError(f"{task} cannot be scored by its name alone: {why}") from None


def _paired(
    said: Sequence[Said],
    examples: Sequence[Example],
    rows: Sequence[str],
    path: Path,
    source: str,
    notes: list[str],
) -> dict[str, Said]:
    ids = [example.id for example in examples]
    if (found := by_id(said, ids, path, source)) is not None:
        return found
    if len(said) == len(ids):
        return dict(zip(ids, said, strict=True))
    if len(said) == len(rows):
        notes.append(
            f"{len(rows)} predictions, one per row, for {len(ids)} examples: the last of an example counts"
        )
        return dict(zip(rows, said, strict=True))
    each = f" or {len(rows)} (one per row of the official file)" if len(rows) != len(ids) else ""
    raise DataError(
        f"{path} has {len(said)} predictions; {len(ids)} are needed, one per example{each}"
    )
