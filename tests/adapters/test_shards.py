"""Merging file by file gives the numbers of merging in memory, to the bit, and holds no model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lorakit.adapters.files import PEFT_FILE, read_adapter
from lorakit.adapters.save import save_adapter
from lorakit.adapters.shards import Shards, shards
from lorakit.errors import AdapterError, ModelError
from lorakit.methods.reparam.lora import LoRA
from lorakit.models import Model
from tests.commands import python

BY_FILE = tuple("bert roberta deberta-v2 distilbert gpt2 gpt_neox llama phi3 opt".split())


@pytest.fixture
def merged(trained, base, tmp_path):
    """`merged(family, ...)` -> (the model that was merged in memory, `shards` of its files)."""

    def merged(
        family: str,
        method: str = "lora",
        head: str = "SequenceClassification",
        size: str = "20KB",
        **fields,
    ):
        model, attachment, folder = trained(family, method, head, **fields)
        checkpoint = tmp_path / "base"
        body = base(family, head).model
        (body.base_model if head == "SequenceClassification" else body).save_pretrained(
            checkpoint, max_shard_size=size
        )
        attachment.merge()
        kind = "classification" if head == "SequenceClassification" else "causal"
        return model, shards(Model(name=str(checkpoint)), kind, ["no", "yes"], read_adapter(folder))

    return merged


def _written(found: Shards, folder: Path, dtype: str = "fp32") -> dict[str, torch.Tensor]:
    folder.mkdir()
    found.write(folder, dtype)
    return {
        name: tensor
        for file in folder.glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }


def _same(
    written: dict[str, torch.Tensor], model: torch.nn.Module, dtype: torch.dtype = torch.float32
) -> None:
    wanted = {name: parameter.detach().to(dtype) for name, parameter in model.named_parameters()}
    assert written.keys() == wanted.keys()
    assert all(torch.equal(written[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("family", BY_FILE)
def test_as_in_memory(merged, tmp_path, family):
    model, found = merged(family)
    assert found is not None
    assert len(found.parts) > 1
    _same(_written(found, tmp_path / "merged"), model.model)
    index = json.loads((tmp_path / "merged" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == {name for name, _ in model.model.named_parameters()}
    for name, file in index["weight_map"].items():
        with safe_open(tmp_path / "merged" / file, "pt") as opened:
            assert name in opened.keys()  # noqa: SIM118 (not a mapping)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_sum_is_rounded_once(merged, tmp_path, dtype):
    model, found = merged("gpt2", head="CausalLM", size="1GB")
    _same(
        _written(
            found, tmp_path / "merged", {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
        ),
        model.model,
        dtype,
    )
    assert [path.name for path in (tmp_path / "merged").iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("method", ["full", "bitfit"])
def test_what_a_method_trained_is_put_in(merged, tmp_path, method):
    model, found = merged("roberta", method)
    _same(_written(found, tmp_path / "merged"), model.model)


def test_the_bias_of_an_adapted_layer_that_the_adapter_holds(base, about, tmp_path):
    """As PEFT trains it with bias="lora_only"."""
    model = base("roberta")
    model.model.base_model.save_pretrained(tmp_path / "base")
    biases = {name for name, _ in model.model.named_parameters() if name.endswith("query.bias")}
    fresh = model.newly_initialised | biases
    attachment = LoRA(r=2, targets=("query",)).attach(model.model, model.roles, fresh)
    model.step(attachment, steps=2)
    save_adapter(tmp_path / "adapter", attachment, about(model, attachment))
    attachment.merge()
    spec = Model(name=str(tmp_path / "base"))
    file = read_adapter(tmp_path / "adapter")
    found = shards(spec, "classification", ["no", "yes"], file)
    assert found is not None
    written = tmp_path / "merged"
    written.mkdir()
    found.write(written, "fp32", check_base=False)
    _same(load_file(written / "model.safetensors"), model.model)


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
def test_experts_are_merged_in_memory(merged, family):
    _, found = merged(family, head="CausalLM", targets=("experts:down_proj",))
    assert found is None


@pytest.mark.parametrize("family", ["roberta", "gpt2", "llama"])
@pytest.mark.parametrize("method", ["svft", "vectorfit"])
def test_what_is_derived_from_a_weight_is_derived_from_its_file(merged, tmp_path, method, family):
    model, found = merged(family, method, d=1) if method == "svft" else merged(family, method)
    _same(_written(found, tmp_path / "merged"), model.model)


def test_a_weight_under_two_names_is_written_once(merged, tmp_path):
    model, found = merged("gpt2", head="CausalLM")
    written = _written(found, tmp_path / "merged")
    assert "lm_head.weight" not in written
    _same(written, model.model)


def test_another_base_is_refused(merged, tmp_path):
    _, found = merged("llama")
    file = next(
        part.file
        for part in found.parts
        if any(key.endswith("up_proj.weight") for key in part.keys)
    )
    save_file(
        {name: -tensor for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"}
    )
    with pytest.raises(AdapterError, match="trained on other weights"):
        _written(found, tmp_path / "merged")
    found.write(tmp_path / "merged", "fp32", check_base=False)  # it was asked for


def test_old_names_of_layer_norm(merged, tmp_path):
    model, found = merged("bert", size="1GB")
    [part] = found.parts
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for key, tensor in load_file(part.file).items()
    }
    assert any(key.endswith("gamma") for key in old)
    save_file({**old, "cls.predictions.bias": torch.zeros(3)}, part.file, metadata={"format": "pt"})
    again = shards(Model(name=str(part.file.parent)), "classification", ["no", "yes"], found.file)
    assert again is not None
    _same(_written(again, tmp_path / "merged"), model.model)


def test_weights_that_are_not_written_as_floats_of_32_bits_are_left_to_transformers(merged):
    _, found = merged("roberta", size="1GB")
    [part] = found.parts
    save_file(
        {key: value.double() for key, value in load_file(part.file).items()},
        part.file,
        metadata={"format": "pt"},
    )
    assert (
        shards(Model(name=str(part.file.parent)), "classification", ["no", "yes"], found.file)
        is None
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {f"another.{key}": tensor for key, tensor in tensors.items()},
        lambda tensors: dict(list(tensors.items())[1:]),
        lambda tensors: {key: tensor[..., :-1].clone() for key, tensor in tensors.items()},
    ],
)
def test_a_base_that_is_not_whole_is_refused(merged, change):
    _, found = merged("roberta", size="1GB")
    [part] = found.parts
    save_file(change(load_file(part.file)), part.file, metadata={"format": "pt"})
    with pytest.raises(ModelError):
        shards(Model(name=str(part.file.parent)), "classification", ["no", "yes"], found.file)


def test_a_file_that_is_cut_short_is_said(merged):
    _, found = merged("llama")
    file = found.parts[0].file
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ModelError, match=file.name):
        shards(Model(name=str(file.parent)), "classification", ["no", "yes"], found.file)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_not_written(merged, tmp_path, number):
    _, found = merged("llama")
    file = found.parts[0].file
    tensors = load_file(file)
    name = min(tensors)
    tensors[name].view(-1)[0] = number
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"{file.name}: {name}"):
        _written(found, tmp_path / "merged")


def test_what_a_half_does_not_hold_is_not_written(merged, tmp_path):
    _, found = merged("llama")
    part = found.parts[0]
    save_file(
        {key: value * 1e6 for key, value in load_file(part.file).items()},
        part.file,
        metadata={"format": "pt"},
    )
    with pytest.raises(ModelError, match="float16"):
        found.write(tmp_path, "fp16", check_base=False)


def test_a_damaged_index_is_said(merged):
    _, found = merged("llama")
    folder = found.parts[0].file.parent
    (folder / "model.safetensors.index.json").write_text('{"weight_map": 3}')
    with pytest.raises(ModelError, match=r"index\.json is damaged"):
        shards(Model(name=str(folder)), "classification", ["no", "yes"], found.file)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}')
    with pytest.raises(ModelError, match=r"names b\.safetensors, which"):
        shards(Model(name=str(folder)), "classification", ["no", "yes"], found.file)


PEAK = """
import re, sys, torch, transformers.models.llama.modeling_llama
from pathlib import Path
from lorakit.adapters.files import read_adapter
from lorakit.adapters.shards import shards
from lorakit.models import Model
base, adapter, to = map(Path, sys.argv[1:])
found = shards(Model(name=str(base)), "causal", [], read_adapter(adapter))
torch.ones(256, 256) @ torch.ones(256, 256)  # the library of products is loaded
def memory(what):
    status = Path("/proc/self/status").read_text()
    return int(re.search(what + r":\\s*(\\d+)", status)[1]) * 1024
Path("/proc/self/clear_refs").write_text("5")  # the peak is that from now on
before = memory("VmRSS")
found.write(to, "fp32")
print(memory("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a process's peak memory is asked of /proc")
def test_no_more_than_a_file_is_in_memory(tiny, about, tmp_path):
    """150 MB of weights in files of 24: the peak grows by at most 1.2 files and the adapter."""
    size = {
        "hidden_size": 1024,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    }
    model = tiny("llama", "CausalLM", num_hidden_layers=6, **size)
    model.model.save_pretrained(tmp_path / "base", max_shard_size="24MB")
    attachment = LoRA(r=8).attach(model.model, model.roles)
    for delta in attachment.deltas.values():
        torch.nn.init.normal_(delta.B)
    save_adapter(
        tmp_path / "adapter", attachment, about(model, attachment, head="causal", labels=[])
    )
    largest = max(path.stat().st_size for path in (tmp_path / "base").glob("*.safetensors"))
    adapter = (tmp_path / "adapter" / PEFT_FILE).stat().st_size
    whole = sum(path.stat().st_size for path in (tmp_path / "base").glob("*.safetensors"))
    assert whole > 5 * largest
    (tmp_path / "to").mkdir()
    arguments = [str(tmp_path / name) for name in ("base", "adapter", "to")]
    done = python("-c", PEAK, *arguments)
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout)
    print(
        f"grown {grown / 2**20:.1f} MiB, largest file {largest / 2**20:.1f}, "
        f"adapter {adapter / 2**20:.1f}"
    )
    assert grown <= 1.2 * largest + adapter
