"""Whether answers are in the order of the examples."""

from __future__ import annotations

import pytest

from lorakit.runs.predictions import PredictionLine, PredictionLines, in_order


@pytest.mark.parametrize(
    ("said", "asked", "wanted"),
    [
        ("abc", "abc", True),
        ("abc", "acb", False),
        ("ab", "abc", False),
        ("abc", "ab", False),
        ("aba", "aba", False),
        (["a", None], ["a", None], False),
        ("", "", True),
    ],
)
def test_in_order(said, asked, wanted):
    lines = PredictionLines(PredictionLine(f"line {i}", id, "x") for i, id in enumerate(said))
    assert in_order(lines, asked) == wanted
