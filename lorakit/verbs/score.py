"""`lorakit score`: a task's metrics on a file of predictions, without a model."""

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
from lorakit.runs.predictions import (
    PredictionLine,
    by_id,
    field_of,
    id_of,
    json_lines,
    read_predictions,
)
from lorakit.tasks import Example, Head, Task, finite_number, given_label, tasks


@dataclass(frozen=True)
class Scored:
    """The scores of a file of predictions."""

    scores: dict[str, float]
    """Metric -> value; NaN where it failed."""
    n: int
    """Number of examples."""
    protocol: str
    """How the scorer works."""
    notes: list[str] = field(default_factory=list)
    failed: Failed = field(default_factory=dict)
    """Metric -> why it could not be computed."""


def score_files(task: str, predictions: Path, references: Path) -> Scored:
    """Score predictions against a file of references, paired by id if both have ids, else by line.

    DataError, with file and line: a line cannot be read, or the files do not pair up.
    """
    scorer = _task_named(task)
    predicted = _read_lines(predictions, ("prediction",))
    expected = _read_lines(references, ("reference", "references"))
    if len(predicted) != len(expected):
        raise DataError(
            f"{predictions} has {len(predicted)} predictions, and {references} has "
            f"{len(expected)} references"
        )
    some_have_ids = any(one.id is not None for one in predicted)
    if some_have_ids and all(one.id is not None for one in expected):
        predicted = _in_order_of(expected, predicted, predictions, references)
    answers = [_value(scorer, one) for one in predicted]
    with failures() as failed:
        scores = scorer.score(answers, [_reference(scorer, one) for one in expected])
    return Scored(scores, len(predicted), scorer.protocol, failed=failed)


def score_values(
    task: str, predictions: Sequence[Any], references: Sequence[Any]
) -> dict[str, float]:
    """Score predictions that are in memory; errors name them by their number, from 1.

    DataError: other lengths, a label that the task does not have, or a value that is not a number.
    """
    scorer = _task_named(task)
    if len(predictions) != len(references):
        raise DataError(f"{len(predictions)} predictions and {len(references)} references")
    answers = [
        _value(scorer, PredictionLine(f"prediction {number}", None, value))
        for number, value in enumerate(predictions, 1)
    ]
    wanted = [
        _reference(scorer, PredictionLine(f"reference {number}", None, value))
        for number, value in enumerate(references, 1)
    ]
    return scorer.score(answers, wanted)


def _read_lines(path: Path, fields: tuple[str, ...]) -> list[PredictionLine]:
    found = []
    for where, line in json_lines(path):
        found.append(PredictionLine(where, id_of(line), field_of(line, fields, where)))
    return found


def _in_order_of(
    expected: Sequence[PredictionLine],
    predicted: Sequence[PredictionLine],
    predictions: Path,
    references: Path,
) -> list[PredictionLine]:
    ids = [str(one.id) for one in expected]
    if len(set(ids)) < len(ids):
        twice = next(id for id in ids if ids.count(id) > 1)
        raise DataError(
            f"{references}: the id {twice!r} occurs twice; predictions are paired with references "
            "by id"
        )
    found = by_id(predicted, ids, predictions, str(references))
    assert found is not None  # a prediction has an id
    return [found[id] for id in ids]


def score_split(task: str, predictions: Path, split: str, overrides: Sequence[str] = ()) -> Scored:
    """Score predictions against the references of a task's split.

    overrides: `data.path=...` says where the data is. The file holds one prediction per example, or
    one per row of the official file (the last row of an example counts, as in the reference code),
    or lines with the examples' `id`. DataError: it is none of these.
    """
    parts = {"task": {"name": task}, "model": {"name": "-"}, "method": {"name": "full"}}
    recipe = compose(parts, overrides)
    scorer = recipe.task
    examples = read_splits(scorer, recipe.data, [split])[split]
    rows = scorer.rows_of(split, recipe.data)
    lines = read_predictions(predictions)
    pairing = _Pairing(lines, [example.id for example in examples], rows)
    found = pairing.by_example(predictions, f"the split {split}")
    failed: Failed = {}
    answers = [_answer(scorer, example, found[example.id]) for example in examples]
    scores = score_answers(scorer, answers, failed)
    return Scored(scores, len(answers), scorer.protocol, pairing.notes, failed)


@dataclass(frozen=True)
class _Pairing:
    """Lines of predictions, and the examples that they may be of."""

    lines: Sequence[PredictionLine]
    ids: Sequence[str]
    rows: Sequence[str]
    """The example's id of each row of the official file."""
    notes: list[str] = field(default_factory=list)

    def by_example(self, path: Path, source: str) -> dict[str, PredictionLine]:
        """Example id -> its prediction. DataError: the numbers of lines do not fit."""
        lines, ids, rows = self.lines, self.ids, self.rows
        if (found := by_id(lines, ids, path, source)) is not None:
            return found
        if len(lines) == len(ids):
            return dict(zip(ids, lines, strict=True))
        if len(lines) == len(rows):
            self.notes.append(
                f"{len(rows)} predictions, one per row, for {len(ids)} examples: the last one of "
                "an example counts"
            )
            return dict(zip(rows, lines, strict=True))
        per_row = ""
        if len(rows) != len(ids):
            per_row = f" or {len(rows)} (one per row of the official file)"
        raise DataError(
            f"{path} has {len(lines)} predictions, and {len(ids)} are needed (one per example)"
            f"{per_row}"
        )


def _answer(task: Task, example: Example, line: PredictionLine) -> Answer:
    return Answer(
        id=example.id,
        prediction=_prediction(task, line),
        reference=task.to_reference(example),
        output=line.value,
        text=example.text,
        group=example.group,
    )


def _prediction(task: Task, line: PredictionLine) -> Any:
    """A text is read as a model's output would be; a label or a number is used as it is."""
    if task.head is not Head.CAUSAL:
        return _value(task, line)
    if isinstance(line.value, (bool, int, float)):
        raise _not_a_text(line)
    try:
        return task.to_prediction(line.value)
    except DataError as error:
        raise DataError(f"{line.where}: {error}") from None


def _value(task: Task, line: PredictionLine) -> Any:
    """DataError, with file and line: not a label of the task, not a number, or not a text."""
    if task.head is Head.CLASSIFICATION:
        return task.labels[given_label(line.value, task.labels, line.where)]
    if task.head is Head.REGRESSION:
        return finite_number(line.value, line.where)
    if isinstance(line.value, (bool, int, float)) and not task.choices:
        raise _not_a_text(line)
    return line.value


def _reference(task: Task, line: PredictionLine) -> Any:
    """As `_value`; a text task can have a list of references."""
    if task.head is not Head.CAUSAL:
        return _value(task, line)
    texts = line.value if isinstance(line.value, list) else [line.value]
    for text in texts:
        _value(task, PredictionLine(line.where, line.id, text))
    return line.value


def _not_a_text(line: PredictionLine) -> DataError:
    return DataError(
        f'{line.where}: {line.value!r} is not a text; write it in quotes, as "{line.value}"'
    )


def _task_named(name: str) -> Task:
    """RecipeError: the task needs more than its name, such as files."""
    plugin = tasks.get(name.split("/")[0])
    try:
        return plugin.model_validate({"name": name})
    except ValidationError as error:
        missing = [str(e["loc"][-1]) for e in error.errors() if e["type"] == "missing"]
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        if missing:
            why = f"it needs {', '.join(missing)}"
        raise RecipeError(f"{name} cannot be scored by its name alone: {why}") from None
