"""A heat map has room for its names and colours for its numbers."""

from __future__ import annotations

import math
import warnings

import pytest

from lorakit.report.heat import Scale, heat_map


@pytest.mark.parametrize("name", ["ab", "x" * 200])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 5), (1, 24)])
def test_every_size_and_name_has_room(rows, columns, name):
    cells = {(f"{name}{i}", f"{name}{j}"): 0.1 * i + j for i in range(rows) for j in range(columns)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns where names leave no room
        picture = heat_map(cells, ("layer", ""), "bar", "title")
    assert "<image" not in picture.svg


@pytest.mark.parametrize(("largest", "is_told"), [(1000.0, True), (40.0, False)])
def test_small_numbers_next_to_a_large_one_have_colours_of_their_own(largest, is_told):
    """From a ratio of 50 on the scale is logarithmic. Nine columns have colours alone."""

    def drawn(*few: float) -> str:
        values = [*few, *[1.0] * 6, largest]
        cells = {("a", str(n)): value for n, value in enumerate(values)}
        return heat_map(cells, ("", ""), "bar", "title").svg

    assert (drawn(1.0, 1.5) != drawn(1.0, 1.0)) is is_told


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1.0, 2.0], None),
        ([1.0, 1000.0], None),  # on a logarithmic scale
        ([-1.0, 3.0], Scale(low=0, high=10, form="+.1f")),
        ([0.0, math.nan], None),
    ],
)
def test_numbers_are_written_and_drawn(values, scale):
    def drawn(first: float, second: float) -> str:
        cells = {("a", "b"): first, ("a", "c"): second}
        return heat_map(cells, ("", ""), "bar", "title", scale).svg

    assert drawn(*values) != drawn(values[0], 1.5)
    assert drawn(*values) == drawn(*values)
