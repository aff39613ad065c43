"""`lorakit score`: a task's metrics on files of predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lorakit.errors import DataError, RecipeError
from lorakit.tasks import tasks


def score_files(task: str, predictions: Path, references: Path) -> tuple[dict[str, float], int]:
    """(scores, number of predictions). DataError with file and line for what cannot be read or does not pair up."""
    plugin = tasks.get(task.split("/")[0])
    try:
        asked = plugin.model_validate({"name": task})
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{task} cannot be scored by its name alone: {why}") from None
    said = [_field(line, ("prediction",), where) for where, line in _lines(predictions)]
    wanted = [_field(line, ("reference", "references"), where) for where, line in _lines(references)]
    if len(said) != len(wanted):
        raise DataError(f"{predictions} has {len(said)} predictions and {references} {len(wanted)} references")
    return asked.score(said, wanted), len(said)


def _lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    found = []
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError as error:
            raise DataError(f"{path}:{number}: this is not JSON: {error}") from None
        if not isinstance(line, dict):
            raise DataError(f"{path}:{number}: a JSON object per line is expected, this is {text[:60]!r}")
        found.append((f"{path}:{number}", line))
    return found


def _field(line: dict[str, Any], names: tuple[str, ...], where: str) -> Any:
    for name in names:
        if line.get(name) is not None:
            return line[name]
    raise DataError(f"{where}: no {' or '.join(map(repr, names))} here (it has: {', '.join(line) or 'nothing'})")
