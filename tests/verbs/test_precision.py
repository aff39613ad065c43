"""What `precision: auto` becomes on a machine with bf16 and without."""

from __future__ import annotations

import pytest

from lorakit.recipe.load import load_recipe
from lorakit.runs.precision import has_bf16, resolve_precision

CASES = {
    "frozen base": ([], True, "bf16", "fp32"),
    "no bf16 here": ([], False, "fp32", "fp32"),
    "the base trains": (["method=full"], True, "fp32", "bf16"),
    "biases of the base train": (["method=bitfit"], True, "fp32", "bf16"),
    "rows of the base train": (["model.new_tokens=[new]"], True, "fp32", "bf16"),
    "a dtype was chosen": (["model.dtype=fp16"], True, "fp16", "fp32"),
    "quantized": (["model.quantize=nf4"], True, "fp32", "fp32"),
}


@pytest.mark.parametrize("case", CASES)
def test_auto(case, monkeypatch):
    overrides, here, dtype, precision = CASES[case]
    monkeypatch.setattr("lorakit.runs.precision.has_bf16", lambda: here)
    recipe = load_recipe("quickstart", ["train.precision=auto", *overrides]).recipe
    found = resolve_precision(recipe)
    assert (found.model.dtype, found.train.precision) == (dtype, precision)
    assert resolve_precision(found) is found


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_what_was_chosen_stays(precision):
    recipe = load_recipe("quickstart", [f"train.precision={precision}"]).recipe
    assert resolve_precision(recipe) is recipe


def test_the_machine_is_asked(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for amx, avx in ((True, False), (False, True), (False, False)):
        monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda amx=amx: amx)
        monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda avx=avx: avx)
        assert has_bf16() is (amx or avx)
