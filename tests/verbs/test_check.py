"""`lorakit check`: what it says of the memory and of one example."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import lorakit.cli.output
from lorakit.cli.check import _print_sample
from lorakit.recipe.load import load_recipe
from lorakit.verbs.check import MIB, check

BYTES_FP32 = 4


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_lines_of_the_memory_are_counts_of_numbers(method):
    found = check(load_recipe("quickstart", [] if method == "lora" else ["method=full"]).recipe)
    counts, mib = found.counts, found.memory_mib
    trained = (counts.trainable + counts.fresh) * BYTES_FP32 / MIB
    assert mib["trained weights"] == pytest.approx(trained)
    assert mib["gradients and activations"] > trained
    assert mib["kept state"] == pytest.approx(trained)
    assert mib["optimizer state"] == pytest.approx(2 * trained, rel=0.01)  # AdamW's two moments
    if method == "full":
        assert mib["frozen weights"] == 0
    else:
        frozen = counts.total - counts.fresh
        assert mib["frozen weights"] == pytest.approx(frozen * BYTES_FP32 / MIB)
    parts = [value for name, value in mib.items() if name != "together"]
    assert mib["together"] == pytest.approx(sum(parts))
    assert "moving average" not in mib


def test_the_moving_average_has_a_line_of_its_own():
    found = check(load_recipe("quickstart", ["train.ema=0.9"]).recipe)
    assert found.memory_mib["moving average"] == found.memory_mib["trained weights"]


def test_the_example_is_the_text_of_the_data():
    found = check(load_recipe("quickstart").recipe)
    text = "".join(piece for piece, _ in found.sample)
    assert text.startswith("<s> ")
    assert text.endswith("</s>")
    assert "  " not in text
    assert not any(trained for _, trained in found.sample)


def test_what_is_trained_is_in_brackets_where_nothing_has_a_colour(capfd):
    lorakit.cli.output.console.cache_clear()
    sample = [("Hi", False), (" Yo", True), ("\n", True), ("Bye", False)]
    _print_sample(SimpleNamespace(sample=sample, cut=0))  # type: ignore[arg-type]
    assert capfd.readouterr().err == "one example ([...] is trained): Hi[ Yo\\n]Bye\n"
