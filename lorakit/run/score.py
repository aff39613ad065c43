"""`lorakit score`: a task's metrics on files of predictions, against given references or the task's own."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lorakit.errors import DataError, RecipeError
from lorakit.metrics import Failed, failures
from lorakit.recipe.load import compose
from lorakit.run.answers import Answer, read_splits, score_answers
from lorakit.tasks import Example, Head, Task, tasks

PACKED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open}


@dataclass(frozen=True)
class Scored:
    """scores (NaN: it failed), the number of examples, how the scorer works, what was noticed, and what failed."""

    scores: dict[str, float]
    n: int
    protocol: str
    notes: list[str] = field(default_factory=list)
    failed: Failed = field(default_factory=dict)


def score_files(task: str, predictions: Path, references: Path) -> Scored:
    """Line by line. DataError with file and line for what cannot be read or does not pair up."""
    asked = _by_name(task)
    said = [_field(line, ("prediction",), where) for where, line in json_lines(predictions)]
    wanted = [_field(line, ("reference", "references"), where) for where, line in json_lines(references)]
    if len(said) != len(wanted):
        raise DataError(f"{predictions} has {len(said)} predictions and {references} {len(wanted)} references")
    with failures() as failed:
        scores = asked.score(said, wanted)
    return Scored(scores, len(said), asked.protocol, failed=failed)


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
    by_id = _paired(said, examples, recipe.task.rows_of(split, recipe.data), predictions, notes)
    task_ = recipe.task
    # a text is read as the model's output would be; a label or a number is an answer already
    said_of = {id: task_.to_prediction(x) if task_.head is Head.CAUSAL else x for id, x in by_id.items()}
    answers = [Answer(e.id, said_of[e.id], task_.to_reference(e), by_id[e.id], e.text, e.group) for e in examples]
    failed: Failed = {}
    scores = score_answers(task_, answers, failed)
    return Scored(scores, len(answers), task_.protocol, notes, failed)


def _by_name(task: str) -> Task:
    plugin = tasks.get(task.split("/")[0])
    try:
        return plugin.model_validate({"name": task})
    except ValidationError as error:
        missing = [str(e["loc"][-1]) for e in error.errors() if e["type"] == "missing"]
        why = f"it needs {', '.join(missing)}" if missing else error.errors()[0]["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{task} cannot be scored by its name alone: {why}") from None


def _paired(
    said: list[tuple[str | None, Any]], examples: Sequence[Example], rows: Sequence[str], path: Path, notes: list[str]
) -> dict[str, Any]:
    ids = [example.id for example in examples]
    if all(id is not None for id, _ in said) and {id for id, _ in said} == set(ids) and len(said) == len(ids):
        return {str(id): text for id, text in said}
    if len(said) == len(ids):
        return dict(zip(ids, (text for _, text in said), strict=True))
    if len(said) == len(rows):
        notes.append(f"{len(rows)} predictions, one per row, for {len(ids)} examples: the last of an example counts")
        return dict(zip(rows, (text for _, text in said), strict=True))
    each = f" or {len(rows)} (one per row of the official file)" if len(rows) != len(ids) else ""
    raise DataError(f"{path} has {len(said)} predictions; {len(ids)} are needed, one per example{each}")


def read_predictions(path: Path) -> list[tuple[str | None, Any]]:
    """(id or None, prediction) of a .jsonl, of the last column of a .tsv with a header, or of each line of a text.

    It may be packed, as .gz or .bz2.
    """
    kind = Path(path.stem if path.suffix in PACKED else path.name).suffix.lower()
    if kind == ".jsonl":
        return [(line.get("id"), _said(line, where)) for where, line in json_lines(path)]
    text = _text(path)
    if kind == ".tsv":
        try:
            table = list(csv.reader(text.rstrip("\n").split("\n"), delimiter="\t"))
        except csv.Error as error:
            raise DataError(f"{path}: not a table: {error}") from None
        if len(table) < 2 or any(len(row) != len(table[0]) for row in table[1:]):
            raise DataError(f"{path}: a header and rows of as many columns are expected, the last one the prediction")
        return [(None, row[-1]) for row in table[1:]]
    return [(None, line) for line in text.removesuffix("\n").split("\n")]


def _text(path: Path) -> str:
    try:
        with PACKED.get(path.suffix, open)(path, "rt", encoding="utf-8-sig") as file:
            return file.read()
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def json_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """(file:line, object) of each line of a JSONL file. DataError: a line that is none."""
    found = []
    for number, text in enumerate(_text(path).split("\n"), 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: this is not JSON: {error}") from None
        if not isinstance(line, dict):
            raise DataError(f"{path}:{number}: a JSON object per line is expected, this is {text[:60]!r}")
        found.append((f"{path}:{number}", line))
    return found


def _said(line: dict[str, Any], where: str) -> Any:
    # WikiSQL's official lines have a query, or an error instead; its task takes such a line, and the others refuse it
    official = "prediction" not in line and ("query" in line or "error" in line)
    return line if official else _field(line, ("prediction",), where)


def _field(line: dict[str, Any], names: tuple[str, ...], where: str) -> Any:
    for name in names:
        if line.get(name) is not None:
            return line[name]
    held = ", ".join(f"{key} (null)" if value is None else key for key, value in line.items())
    raise DataError(f"{where}: no {' or '.join(map(repr, names))} here (it has: {held or 'nothing'})")
