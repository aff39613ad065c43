"""Memory: the counted bytes are those that training keeps; the paper's numbers for GPT-3."""

from __future__ import annotations

import json

import pytest
import torch

from lorakit.bench import Setting, benches
from lorakit.bench._memory import kept
from lorakit.bench.memory import gpt3_parameters, gpt3_table, lora_parameters
from lorakit.errors import InputError
from lorakit.recipe.load import load_recipe
from tests.commands import python

SMALL = Setting(layers=2, batch=2, length=8)


@pytest.mark.parametrize("recipe", ["quickstart", "quickstart_generate"])
@pytest.mark.parametrize("way", ["lorakit", "full", pytest.param("peft", marks=pytest.mark.peers)])
def test_what_is_kept(recipe, way):
    found = kept(way, load_recipe(recipe, []).recipe, SMALL)
    assert found["gradients"] == 4 * found["trained"]
    moments = found["optimizer"] - 8 * found["trained"]
    assert 0 < moments < 4096  # a counter of steps for each parameter
    assert found["weights"] >= 4 * found["trained"]
    assert found["activations"] > 0
    # PEFT has one A for a fused weight: one of 2 r holds query and value, with zeros in B
    factor = 2 if (way, recipe) == ("lorakit", "quickstart_generate") else 1
    assert (
        0 <= found["file"] - factor * 4 * found["trained"] < 20_000
    )  # a header, and what PEFT calls each tensor
    if way == "full":
        assert found["weights"] - 4 * found["trained"] < 10_000  # buffers


IMPORTED = """
import sys
from lorakit.bench import Setting, _memory
from lorakit.recipe.load import load_recipe

def resident():
    names = {name for name in ("peft", "transformers.models.roberta.modeling_roberta")}
    print("imported:", *sorted(names & set(sys.modules)), flush=True)
    return 0

_memory.resident = _memory.peak_bytes = resident
_memory.kept(sys.argv[1], load_recipe("quickstart").recipe, Setting(layers=1, batch=2, length=8))
"""


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize("way", ["lorakit", "peft"])
def test_what_is_imported_does_not_count_as_memory_of_training(way):
    done = python("-c", IMPORTED, way)
    assert done.returncode == 0, done.stderr
    before, after = (line.split()[1:] for line in done.stdout.splitlines())
    assert before == after
    assert ("peft" in before) == (way == "peft")


def test_full_keeps_more_of_all_but_its_weights():
    recipe = load_recipe("quickstart", []).recipe
    ours, full = (kept(way, recipe, SMALL) for way in ("lorakit", "full"))
    for part in ("trained", "gradients", "optimizer", "activations", "file"):
        assert full[part] > ours[part], part


def test_in_bf16_only_what_is_frozen_is_half_as_large():
    recipe = load_recipe("quickstart", []).recipe
    half = Setting(layers=2, batch=2, length=8, precision="bf16")
    ours, full = (kept(way, recipe, half) for way in ("lorakit", "full"))
    assert full["weights"] == kept("full", recipe, SMALL)["weights"]
    assert ours["weights"] < 0.56 * kept("lorakit", recipe, SMALL)["weights"]


def test_gpt3_is_counted_as_its_model_has_it():
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "gpt2", vocab_size=50257, n_positions=2048, n_embd=12288, n_layer=96, n_head=96
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == gpt3_parameters() == 174_604_259_328


def test_the_paper_says_18_9_million_at_r_4():
    assert lora_parameters() == 18_874_368  # 37.7 MB in 16 bits, printed as 35 MB
    cells = {row[0]: row for row in gpt3_table().rows if row[0]}
    assert cells["checkpoint, LoRA"][2:] == ("35 MB", "37.7 MB = 36.0 MiB")
    assert cells["checkpoint, full"][2:] == ("350 GB", "349.2 GB")
    assert cells["checkpoints, full / LoRA"][2:] == ("10,000 x", "9,251 x")
    assert cells["training, LoRA"][2:] == ("350 GB", "349.5 GB")
    assert cells["training, full / LoRA"][3] == "3.0 or 4.0 or 8.0 x"


@pytest.mark.slow
def test_the_command():
    words = "memory quickstart --against full --layers 1 --batch 2 --length 8".split()
    done = python("-m", "lorakit", "bench", *words, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)["bytes"]
    assert {name.partition(": ")[0] for name in said} == {"lorakit", "full"}
    assert all(said[f"{way}: peak"] > said[f"{way}: gradients"] for way in ("lorakit", "full"))
    plain = python("-m", "lorakit", "bench", *words).stdout
    assert "full / lorakit" in plain
    assert "GPT-3 175B" in plain


@pytest.mark.slow
def test_other_methods_and_failed_processes_are_refused():
    with pytest.raises(InputError, match="method is full"):
        benches.get("memory").checked(
            load_recipe("quickstart", ["~method", "method.name=full"]).recipe, SMALL
        )
    setting = Setting(against=(), recipe=("quickstart", "train.nothing=1"))
    with pytest.raises(InputError, match="ended with 1"):
        benches.get("memory").run(load_recipe("quickstart", []).recipe, setting)
