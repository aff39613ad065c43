"""The verbs on methods that never become weights: adapters, prefixes, and their sums with LoRA."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from lorakit.runs.result import Result
from tests.tiers import unit_or_slow

FEW = [
    "train.max_steps=6",
    "train.global_batch_size=8",
    "train.warmup=0",
    "data.limit={train: 48, validation: 6}",
]
CASES = {
    "an adapter": (
        "quickstart",
        "{name: adapter_h, r: 4}",
        2 * 3,
        2 * 3 * (2 * 128 * 4 + 4 + 128),
        [],
    ),
    "adapterdrop, recomputed": (
        "quickstart",
        "{name: adapter_d, r: 4, drop: 1}",
        2,
        2 * (2 * 128 * 4 + 4 + 128),
        ["train.gradient_checkpointing=true"],
    ),
    "an adapter of a decoder, frozen in bf16": (
        "quickstart_generate",
        "{name: adapter_p, r: 4}",
        3,
        3 * (2 * 128 * 4 + 4 + 128),
        ["model.dtype=bf16"],
    ),
    "a prefix, recomputed": (
        "quickstart_generate",
        "{name: prefix_layer, prefix: 4, infix: 2}",
        3,
        3 * 128 * 6,
        ["train.gradient_checkpointing=true"],
    ),
    "a prefix with LoRA, frozen in bf16": (
        "quickstart_generate",
        "{name: lora_prefix_embedding, lora: {r: 2}, prompt: {prefix: 4, infix: 2}}",
        7,
        2 * 6 * 128 * 2 + 128 * 6,
        ["model.dtype=bf16", "train.micro_batch_size=4"],
    ),
}
"""recipe, method, sites, parameters, what else is changed"""


@pytest.mark.parametrize("case", unit_or_slow(CASES, ["an adapter", "a prefix, recomputed"]))
def test_it_is_trained_saved_read_again_and_not_merged(lorakit_cli, tmp_path, case):
    recipe, method, sites, parameters, more = CASES[case]
    given = [recipe, f"method={method}", *FEW, *more]
    if recipe != "quickstart":
        given += ["data.max_length=100", "decode.max_new_tokens=8", "evaluate.every=99"]
    checked = lorakit_cli("check", *given, "--json")
    assert checked.code == 0, checked.err
    assert len(checked.json["sites"]) == sites
    assert checked.json["counts"]["trainable"] == parameters
    done = lorakit_cli("train", *given, "--runs", tmp_path, "--json")
    assert done.code == 0, done.err
    assert "what was trained is alive, and reloads to the same logits" in done.err
    run = Path(done.json["run"])
    (seed,) = Result.read(run / "result.json").seeds
    assert {check.name: check.passed for check in seed.checks} == {"alive": True, "reload": True}
    assert len(seed.delta_norms) == sites
    assert min(seed.delta_norms.values()) > 0
    with safe_open(run / "seed0" / "adapter" / "trained.safetensors", "pt") as file:
        names = list(file.keys())
        numbers = sum(file.get_tensor(name).numel() for name in names)
    assert numbers == parameters + (Result.read(run / "result.json").counts.fresh)
    scored = lorakit_cli("eval", run, "--json")
    assert scored.code == 0, scored.err
    (split,) = seed.scores
    assert scored.json["scores"][split] == pytest.approx(seed.scores[split])
    if recipe != "quickstart":
        # the base itself, and not one with a prefix that is not trained yet
        assert scored.json["base_scores"][split] == pytest.approx(seed.base_scores[split])
        said = lorakit_cli("generate", run, "--prompt", "name : Blue Spice | stars : 5")
        assert said.code == 0, said.err
    merged = lorakit_cli("merge", run, "--to", tmp_path / "merged")
    assert merged.code == 2
    assert "cannot be merged: " in merged.err
    assert not (tmp_path / "merged").exists()


def test_a_prefix_that_does_not_fit(lorakit_cli):
    done = lorakit_cli(
        "check", "quickstart_generate", "method={name: prefix_layer, prefix: 8, infix: 4}"
    )
    assert done.code == 2
    assert (
        "data.max_length 128 and the 12 tokens of the method are more than the 128 tokens"
        in done.err
    )


def test_a_prefix_and_packing(lorakit_cli):
    changes = ["method=prefix_layer", "data.max_length=100", "data.packing=true"]
    done = lorakit_cli("check", "quickstart_generate", *changes)
    assert done.code == 2
    assert "data.packing: prefix_layer puts tokens before every prompt" in done.err


def test_a_prefix_on_an_encoder(lorakit_cli):
    done = lorakit_cli("check", "quickstart", "method=prefix_embedding")
    assert done.code == 2
    assert "prefix_embedding is for decoders" in done.err
