"""A heat map has room for its names and colours for its numbers."""

from __future__ import annotations

import math
import warnings

import pytest

from lorakit.report.heat import heat_map


@pytest.mark.parametrize("name", ["ab", "x" * 200])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 5), (1, 24)])
def test_every_size_and_name_has_room(rows, columns, name):
    grid = [[0.1 * i + j for j in range(columns)] for i in range(rows)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns where names leave no room
        names = [[f"{name}{i}" for i in range(n)] for n in (rows, columns)]
        picture = heat_map(grid, *names, ("layer", ""), "bar", "title")
    assert "<image" not in picture.svg


@pytest.mark.parametrize(
    ("grid", "ends"),
    [
        ([[1.0, 2.0]], {}),
        ([[1.0, 1000.0]], {}),  # on a logarithmic scale
        ([[-1.0, 3.0]], {"low": 0, "high": 10, "form": "+.1f"}),
        ([[0.0, math.nan]], {}),
    ],
)
def test_numbers_are_written_and_drawn(grid, ends):
    def drawn(values):
        return heat_map(values, ["a"], ["b", "c"], ("", ""), "bar", "title", **ends).svg

    assert drawn(grid) != drawn([[grid[0][0], 1.5]])
    assert drawn(grid) == drawn(grid)
