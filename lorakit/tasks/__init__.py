"""Tasks: what is learned, and how it is scored.

One file per family of data sets; `glue/mrpc` is the variant `mrpc` of `glue.py`.
"""

from __future__ import annotations

from lorakit.registry import Registry
from lorakit.tasks._answers import finite_number, given_label, given_labels
from lorakit.tasks._base import (
    ASSISTANT,
    LABELLED,
    THINKING_KEYS,
    Data,
    Example,
    Head,
    Prediction,
    Task,
    Turn,
)
from lorakit.tasks._example_rows import ChosenExamples, ExampleRows, have_turns, learnt_digest
from lorakit.tasks._kept import read_examples
from lorakit.tasks._sources import Source

tasks: Registry[type[Task]] = Registry("lorakit.tasks", "task")

__all__ = [
    "ASSISTANT",
    "LABELLED",
    "THINKING_KEYS",
    "ChosenExamples",
    "Data",
    "Example",
    "ExampleRows",
    "Head",
    "Prediction",
    "Source",
    "Task",
    "Turn",
    "finite_number",
    "given_label",
    "given_labels",
    "have_turns",
    "learnt_digest",
    "read_examples",
    "tasks",
]
