"""Bases in 8 and 4 bits, on the CPU: the same sites, the right gradients, and merging."""

from __future__ import annotations

import pytest
import torch

import lorakit
from lorakit.adapters.files import read_adapter
from lorakit.adapters.fingerprint import fingerprint
from lorakit.adapters.save import save_adapter
from lorakit.bases.load import load, load_dequantized
from lorakit.errors import AdapterError, InputError, ModelError
from lorakit.methods.reparam.lora import LoRA
from lorakit.models import Model
from lorakit.nn.linear import is_quantized, numbers_in
from lorakit.runs.attach import counts_of
from tests.attaching import attach, attach_saved

pytest.importorskip("bitsandbytes", reason="the extra `quantized` is not installed")

WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "head_dim": 16}
"""NF4 rounds 64 numbers together; a layer of a real model has at least 256 such blocks."""


@pytest.fixture(scope="module")
def folder(tiny, tokenizer, tmp_path_factory):
    def make(seed: int = 0, family: str = "llama"):
        place = tmp_path_factory.mktemp(f"{family}{seed}")
        changes = WIDE if family == "llama" else {}
        tiny(family, "CausalLM", seed=seed, **changes).model.save_pretrained(place)
        tokenizer().save_pretrained(place)
        return str(place)

    return make


def _logits(model) -> torch.Tensor:
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    return model(input_ids=ids).logits.float()


def _lora(base):
    torch.manual_seed(0)
    attachment = attach(LoRA(r=4), base)
    with torch.no_grad():
        for parameter in attachment.trained().values():
            parameter.copy_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 8
            )
    return attachment


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_the_same_sites_and_counts_with_head_and_embeddings_whole(folder, kind):
    path = folder()
    plain, stored = (
        load(Model(name=path), "causal"),
        load(Model(name=path, quantize=kind), "causal"),
    )
    kept = {
        name
        for name, m in stored.model.named_modules()
        if isinstance(m, torch.nn.Linear) and not is_quantized(m)
    }
    assert kept == {"lm_head"}
    assert stored.quantized == kind
    wanted, found = _lora(plain), _lora(stored)
    assert [(s.name, s.shape) for s in found.sites] == [(s.name, s.shape) for s in wanted.sites]
    assert counts_of(found) == counts_of(wanted)
    stored_bytes = sum(
        p.numel() * p.element_size()
        for m in stored.model.modules()
        if is_quantized(m)
        for p in m.parameters(recurse=False)
    )
    numbers = sum(
        numbers_in(p)
        for m in stored.model.modules()
        if is_quantized(m)
        for p in m.parameters(recurse=False)
    )
    assert stored_bytes == numbers / {"nf4": 2, "int8": 1}[kind]


@pytest.mark.parametrize(("kind", "close"), [("nf4", 1e-4), ("int8", 5e-2)])
def test_gradients_are_those_of_the_model_that_it_stands_for(folder, kind, close):
    """Also after it was asked outside of training; LLM.int8 rounds its inputs too."""
    spec = Model(name=folder(), quantize=kind)
    stored, dense = load(spec, "causal"), load_dequantized(spec, "causal")
    gradients = []
    for base in (stored, dense):
        attachment = _lora(base)
        with torch.no_grad():
            _logits(base.model.eval())
        base.model.train()
        _logits(base.model).pow(2).mean().backward()
        gradients.append({name: p.grad for name, p in attachment.trained().items()})
    size = max(g.abs().max() for g in gradients[1].values())
    assert size > 1e-3
    for name, wanted in gradients[1].items():
        assert (gradients[0][name] - wanted).abs().max() < close * size, name


@pytest.mark.parametrize(("kind", "close"), [("nf4", 1e-4), ("int8", 5e-2)])
def test_merged_into_what_it_stands_for_it_is_the_same_model(
    folder, kind, close, tmp_path, about, tiny
):
    path = folder()
    spec = Model(name=path, quantize=kind)
    stored = load(spec, "causal")
    attachment = _lora(stored)
    with torch.no_grad():
        wanted = _logits(stored.model.eval())
    with pytest.raises(ModelError, match="q_proj is quantized: load the model dequantized"):
        attachment.merge()
    with attachment.folded(), torch.no_grad():
        assert torch.equal(_logits(stored.model), wanted)
    found = fingerprint(stored.model, stored.newly_initialised)
    card = about(tiny("llama", "CausalLM"), attachment, head="causal", labels=[], fingerprint=found)
    save_adapter(tmp_path / "adapter", attachment, card)
    read = read_adapter(tmp_path / "adapter")
    dense = load_dequantized(spec, "causal")
    again = attach_saved(read, dense)
    again.merge()
    with torch.no_grad():
        found = _logits(dense.model.eval())
    assert (found - wanted).abs().max() < close * wanted.abs().max()
    plain = load(Model(name=path), "causal")
    attach_saved(read, plain)  # quantizing does not make another base
    other = load(Model(name=folder(seed=1)), "causal")
    with pytest.raises(AdapterError, match="trained on other weights"):
        attach_saved(read, other)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_fresh_head_is_never_quantized(folder, kind):
    base = load(Model(name=folder(), quantize=kind), "classification", ["a", "b"])
    assert base.newly_initialised == {"score.weight"}
    assert not is_quantized(base.model.score)
    assert _lora(base).trained()["score.weight"].requires_grad


def test_what_cannot_be_quantized(folder, monkeypatch):
    with pytest.raises(ModelError, match=r"GPT2LMHeadModel.*Conv1D"):
        load(Model(name=folder(family="gpt2"), quantize="nf4"), "causal")
    monkeypatch.setattr("lorakit.bases.quantized.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"lorakit\[quantized\]"):
        load(Model(name=folder(), quantize="nf4"), "causal")


def test_on_a_machine_with_a_gpu_it_stays_on_the_cpu_where_that_was_asked(folder, monkeypatch):
    """The meta device stands for the GPU on which transformers would put it."""
    quantizer = "transformers.quantizers.quantizer_bnb_4bit.Bnb4BitHfQuantizer"
    monkeypatch.setattr(f"{quantizer}.update_device_map", lambda _, given: given or {"": "meta"})
    monkeypatch.setenv("LORAKIT_CPU", "1")
    base = load(Model(name=folder(), quantize="nf4"), "causal")
    assert {p.device.type for p in base.model.parameters()} == {"cpu"}


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@torch.no_grad()
def test_several_adapters_on_a_quantized_base(folder, tiny, about, tmp_path, kind):
    spec = Model(name=folder(), quantize=kind)
    wanted = {}
    for name, scale in (("a", 1.0), ("b", -1.0)):
        base = load(spec, "causal")
        print_of_base = fingerprint(base.model, base.newly_initialised)
        attachment = _lora(base)
        for delta in attachment.deltas.values():
            delta.B.mul_(scale)
        wanted[name] = _logits(base.model.eval())
        card = about(
            tiny("llama", "CausalLM"),
            attachment,
            head="causal",
            labels=[],
            fingerprint=print_of_base,
        )
        save_adapter(tmp_path / name, attachment, card)
    base = load(spec, "causal")
    model = base.model.eval()
    wanted[None] = _logits(model)
    adapters = lorakit.Adapters(model)
    for name in ("a", "b"):
        adapters.add(name, tmp_path / name)
        adapters.switch(name)
        assert torch.equal(_logits(model), wanted[name])
    adapters.switch(None)
    assert torch.equal(_logits(model), wanted[None])
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]]).repeat(3, 1)
    with adapters.mix(["b", None, "a"]):
        mixed = model(input_ids=ids).logits.float()  # type: ignore[operator]
    for row, name in enumerate(["b", None, "a"]):
        close = 0.1 if kind == "int8" else 1e-5  # int8 rounds the inputs of a batch together
        assert (mixed[row] - wanted[name][0]).abs().max() < close
        others = [logits[0] for other, logits in wanted.items() if other != name]
        assert all((mixed[row] - logits).abs().max() > 3 * close for logits in others)
    with pytest.raises(ModelError, match="q_proj is quantized"), adapters.fold("a"):
        pass
