"""An adapter's files mean what PEFT says they mean: y = W x + (alpha / r) B A x on a stock model of
transformers, written out here once, without lorakit's layers or PEFT's."""

from __future__ import annotations

import json
import re
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from lorakit.adapters.save import save_adapter
from lorakit.fast import make_fast
from lorakit.methods.reparam import Target
from lorakit.methods.reparam.lora import LoRA
from lorakit.models import family_of
from tests.attaching import attach

PREFIX = "base_model.model."
CLASSIFIER, CAUSAL = "SequenceClassification", "CausalLM"
CASES = [
    ("roberta", CLASSIFIER, ["query", "value"]),
    ("bert", CLASSIFIER, ["all-linear"]),
    ("t5", CLASSIFIER, ["query", "mlp_in"]),
    ("distilbert", CLASSIFIER, ["query", "mlp_out"]),
    ("deberta", CLASSIFIER, ["query", "value"]),  # fused
    ("deberta-v2", CLASSIFIER, ["key", "attention_out"]),
    ("gpt2", CLASSIFIER, ["query", "value"]),  # fused, and transposed
    ("gpt2", CAUSAL, ["query", "mlp_in"]),
    ("gpt_neox", CAUSAL, ["query", "value"]),  # fused, head by head
    ("bloom", CAUSAL, ["key", "mlp_out"]),
    ("phi3", CAUSAL, ["query", "value"]),
    ("phi3", CAUSAL, ["mlp_in", "attention_out"]),
    ("llama", CLASSIFIER, ["query", "mlp_out"]),
    ("llama", CAUSAL, ["all-linear"]),
    ("opt", CAUSAL, ["query", "value"]),
    ("gemma2", CAUSAL, ["value", "mlp_out"]),
]


def _scale(config: dict, path: str) -> float:
    """alpha / r of one module: a pattern is the end of its path, or all of it."""

    def own(patterns: dict, default: float) -> float:
        found = [value for key, value in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", path)]
        return found[0] if found else default

    rank = own(config.get("rank_pattern", {}), config["r"])
    return own(config.get("alpha_pattern", {}), config["lora_alpha"]) / rank


def _add(a, b, scale, _module, inputs, output):
    return output + inputs[0] @ a.T @ b.T * scale


@torch.no_grad()
def _put_on(model, folder) -> int:
    """The adapter folder on a stock model; the number of modules that it adapts."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = {
        name.removeprefix(PREFIX): t
        for name, t in load_file(folder / "adapter_model.safetensors").items()
    }
    paths = [
        name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")
    ]
    for path in paths:
        a, b = tensors.pop(f"{path}.lora_A.weight"), tensors.pop(f"{path}.lora_B.weight")
        model.get_submodule(path).register_forward_hook(partial(_add, a, b, _scale(config, path)))
    for name, tensor in tensors.items():  # modules_to_save: whole
        model.get_parameter(name).copy_(tensor)
    return len(paths)


@pytest.mark.parametrize("own", [False, True], ids=["one rank", "a rank of its own"])
@pytest.mark.parametrize(("family", "head", "targets"), CASES, ids=str)
def test_the_files_give_the_logits(tiny, about, tmp_path, family, head, targets, own):
    ours, kind = tiny(family, head), "causal" if head == CAUSAL else "classification"
    make_fast(ours.model, family_of(family).reads_first)
    chosen = [Target(match=targets[0], r=2, alpha=9), *targets[1:]] if own else targets
    attachment = attach(LoRA(targets=tuple(chosen), r=3, alpha=5), ours)
    card = about(ours, attachment, head=kind)
    ours.step(attachment, steps=2)
    save_adapter(tmp_path / "adapter", attachment, card)
    stock = tiny(family, head)
    before = stock.logits()
    assert _put_on(stock.model, tmp_path / "adapter") > 0
    wanted = stock.logits()
    size = float(wanted.abs().max())
    assert (wanted - before).abs().max() > 1e-2 * size
    torch.testing.assert_close(ours.logits(), wanted, rtol=1e-4, atol=1e-4 * size)
    attachment.merge()
    torch.testing.assert_close(ours.logits(), wanted, rtol=1e-4, atol=1e-4 * size)
