"""`KEY=` is completed by the shell: keys with descriptions, and the values of a key."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lorakit.cli.options import _joined
from lorakit.methods import methods
from lorakit.recipe.complete import HELP_CHARACTERS, completions, values
from lorakit.recipe.train import Train


def _words(*given: str, recipe: str | None = "quickstart") -> list[str]:
    return [word for word, _ in completions(recipe, given[:-1], given[-1])]


def test_every_key_of_a_section_is_offered_with_its_description():
    found = dict(completions("quickstart", (), "train."))
    wanted = {f"train.{key}=" for key in Train.model_fields} - {"train.checkpoint="}
    assert wanted <= set(found)
    assert "train.checkpoint.keep_last=" in found
    assert found["train.max_steps="].startswith("Stop after this many optimizer steps")
    assert max(map(len, found.values())) <= HELP_CHARACTERS


@pytest.mark.parametrize(
    ("begun", "wanted"),
    [
        ("evaluate.keep=", ["evaluate.keep=best", "evaluate.keep=last"]),
        ("train.fast=o", ["train.fast=off"]),
        ("train.group", ["train.group_by_length=true", "train.group_by_length=false"]),
        ("method=ver", ["method=vera"]),
        ("method.init=pi", ["method.init=pissa"]),
        ("train.optimizer=li", ["train.optimizer=lion"]),
        ("model.name", ["model.name=", "model.name=lorakit:tiny_encoder"]),
        ("method.targets", ["method.targets="]),
        ("~train.ep", ["~train.epochs"]),
        ("nothing", []),
        ("nothing=", []),
    ],
)
def test_words_at_the_cursor(begun, wanted):
    assert _words(begun) == wanted


def test_registry_names_are_all_offered():
    assert _words("method=") == [f"method={name}" for name in methods.names()]


def test_the_keys_are_those_of_the_method_that_is_set():
    assert "method.r=" in _words("method.")
    assert "method.bottleneck=" not in _words("method.")
    keys = {f"method.{key}=" for key in methods.get("adapter_h").model_fields}
    assert keys - {"method.name="} <= set(_words("method={name: adapter_h}", "method."))


def test_without_a_recipe_the_common_keys_are_offered():
    for recipe in (None, "not_a_recipe"):
        words = _words("", recipe=recipe)
        assert {"train.epochs=", "method=", "decode.beams="} <= set(words)
        assert "method.r=" not in words
    assert _words("method.r=x", "train.schedule=w") == ["train.schedule=wsd"]


def test_values_alone_for_a_shell_that_splits_at_the_equals_sign():
    assert values("quickstart", (), "train.schedule", "c") == [("cosine", ""), ("constant", "")]
    assert values("quickstart", (), "train.scheduel", "") == []


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["a.b", "=", "3", "c", "="], ["a.b=3", "c="]),
        (["a=3", "~c", "d"], ["a=3", "~c", "d"]),
        ([], []),
    ],
)
def test_a_command_line_that_was_split_is_joined(words, wanted):
    assert _joined(words) == wanted


@pytest.mark.parametrize(
    ("shell", "environment", "wanted"),
    [
        (
            "bash",
            {"COMP_WORDS": "lorakit\ntrain\nquickstart\nmethod.r\n=\n4\nevaluate.keep\n=\n"},
            ["best", "last"],
        ),
        (
            "fish",
            {"_TYPER_COMPLETE_ARGS": "lorakit eval runs/none evaluate.ke"},
            ["evaluate.keep=best", "evaluate.keep=last"],
        ),
    ],
)
def test_the_shells_get_it(shell, environment, wanted):
    variables = {
        "_LORAKIT_COMPLETE": f"complete_{shell}",
        "COMP_CWORD": "7",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        **environment,
    }
    run = "import sys; from lorakit.cli import main; sys.argv = ['lorakit']; main()"
    done = subprocess.run(
        [sys.executable, "-c", run], env=os.environ | variables, capture_output=True, text=True
    )
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == wanted, done.stderr
