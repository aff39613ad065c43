"""The scores of a combined or rebased adapter in every format that a table has."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from lorakit.cli.options import Format
from lorakit.cli.output import give_scored
from lorakit.verbs.combine.scores import TaskScores


@pytest.mark.parametrize("form", get_args(Format))
def test_a_table_of_scores_is_written(capsys, form):
    scores = TaskScores(
        tasks={"a": "glue/mrpc validation accuracy"},
        scores={"a": {"a": {"accuracy": 91.25}}, "the combination": {"a": {"accuracy": 87.5}}},
        primary={"a": "accuracy"},
    )
    found = SimpleNamespace(scored=scores, plain=dict)
    give_scored(found, Path("out"), form, as_json=False)
    said = capsys.readouterr().out
    assert "91.25" in said
    assert "87.5" in said
