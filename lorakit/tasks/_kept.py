"""Kept examples: what was read of large files once, mapped from the cache."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lorakit.files.arrays import Facts, GrowingArrays
from lorakit.files.kept_reading import Reading
from lorakit.tasks._base import Data, Example, Task
from lorakit.tasks._example_rows import ExampleRows, ExampleRowsWriter

KIND = "examples"
READ_BY = {"path", "limit", "empty", "too_long"}
"""The keys of `data` that decide which rows are read."""


def reading_of(task: Task, split: str, asked: Sequence[str]) -> Reading:
    """What a task reads of the files of a split. asked: what decides it besides the task."""
    module = sys.modules[type(task).__module__].__file__
    own = [Path(module)] if module else []
    values = (type(task).__qualname__, task.model_dump_json(), split, *asked)
    return Reading(KIND, task.files_of(split), values, [Path(__file__).parent, *own])


def read_examples(task: Task, split: str, data: Data) -> Sequence[Example]:
    """As `task.read`, mapped from the cache where its files are large and were read before."""
    reading = reading_of(task, split, [data.model_dump_json(include=READ_BY)])
    if not reading.is_large:
        return task.read(split, data)
    reading.asked = (*reading.asked, *task.labels)

    def make(arrays: GrowingArrays) -> Facts:
        rows = ExampleRowsWriter(arrays)
        for example in task.examples(split, data):
            rows.add(example)
        return rows.finish()

    return ExampleRows(*reading.kept(make))
