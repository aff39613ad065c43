"""Every value of a shipped recipe, and of the fragments that recipes extend, says in its file where
it comes from; a reader of `lorakit recipes show --origins` is told `ours` where it says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorakit.recipe.shipped import find, names, shipped
from lorakit.recipe.source import read_yaml
from tests.recipes.test_table2 import has_origin, leaves

FRAGMENTS = sorted(
    path for path in shipped("configs").rglob("*.yaml") if path.parent.name != "accelerate"
)
FILES = [*map(find, names()), *FRAGMENTS]


@pytest.mark.parametrize("file", FILES, ids=lambda file: "/".join(file.parts[-2:]))
def test_every_value_says_where_it_is_from(file: Path) -> None:
    data, marks = read_yaml(file)
    data.pop("extends", None)
    found = leaves(data)
    assert found
    assert [".".join(path) for path in found if not has_origin(path, marks)] == []


def test_every_fragment_of_a_recipe_is_looked_at() -> None:
    used = {name for file in map(find, names()) for name in read_yaml(file)[0].get("extends", ())}
    looked_at = {str(path.relative_to(shipped("configs")).with_suffix("")) for path in FRAGMENTS}
    assert used
    assert used <= looked_at


def test_a_value_without_a_comment_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(
        "a:  # paper T1\n  b: 1\nc:\n  d: 2  # ours: tried\n  e: 3\nf: 4  # paperback\n"
    )
    data, marks = read_yaml(file)
    assert [path for path in leaves(data) if not has_origin(path, marks)] == [("c", "e"), ("f",)]
