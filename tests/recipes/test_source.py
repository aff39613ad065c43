"""The one reader of YAML: what costs more than it is long is refused at once, and what is written
reads back."""

from __future__ import annotations

import time

import pytest

from lorakit.errors import RecipeError
from lorakit.recipe.load import load_recipe
from lorakit.recipe.shipped import names
from lorakit.recipe.source import dump_yaml, parse_yaml, read_yaml
from lorakit.runs.same import recorded_recipe

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
COSTLY = {
    "aliases": LAUGHS,
    "deep": "[" * 100_000,
    "one long line": "a: [" + "x, " * 100_000 + "x]  # comment",
    "many keys": "".join(f"k{i}: {{a: 1}}\n" for i in range(100_000)),
    "a tag": "a: !!python/object/apply:os.system ['true']",
    "large": "a: '" + "x" * 9_000_000 + "'",
}


@pytest.mark.parametrize("kind", COSTLY)
def test_what_costs_more_than_it_is_long(tmp_path, kind):
    (tmp_path / "recipe.yaml").write_text(COSTLY[kind])
    begin = time.process_time()
    with pytest.raises(RecipeError, match=r"recipe\.yaml"):
        read_yaml(tmp_path / "recipe.yaml")
    assert recorded_recipe(tmp_path) is None, "a run's folder is read by the same reader"
    assert time.process_time() - begin < 30


TEXTS = [
    "1e4",
    "1_0",
    "4e-4",
    "true",
    "null",
    "~",
    "",
    ".inf",
    "yes",
    "0x10",
    "2020-01-01",
    "1.",
    "a: b #c",
    "- x",
    "<<",
    "=",
    "&a",
    "*a",
    "!t",
    "'q",
    '"q',
    " lead",
    "trail ",
    "two\nlines\n",
    "tab\there",
    "\x1b\x85\u202e\u2028\ufeff",
    "012",
]


@pytest.mark.parametrize("unicode", [True, False])
def test_what_is_written_reads_back(unicode):
    same = ["shared"]
    data = {
        "texts": TEXTS,
        "numbers": [1, -2, 1e-5, 1e300, 0.1],
        "others": [True, None, {}, [], same, same],
    }
    text = dump_yaml(data, unicode)
    assert parse_yaml(text, "f")[0] == data
    assert unicode or text.isascii()


def test_every_shipped_recipe_is_written_as_before():
    for name in names():
        plain = load_recipe(name).recipe.plain()
        assert parse_yaml(dump_yaml(plain), "f")[0] == plain, name


@pytest.mark.parametrize("text", ["{train:320}", "a: {b: 1, train:320}", "a:\n  train:320: \n"])
def test_a_space_that_is_missing_after_a_colon_is_named(text):
    with pytest.raises(RecipeError, match="train: 320"):
        parse_yaml(text, "f")


def test_a_colon_in_a_key_is_kept_where_it_has_a_value_or_quotes():
    found, _ = parse_yaml("{a:b: 1, 'c:d': , e:f: '', g: }", "f")
    assert found == {"a:b": 1, "c:d": None, "e:f": "", "g": None}
