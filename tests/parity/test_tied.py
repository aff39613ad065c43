"""An adapter of PEFT that holds an embedding, or an output layer, whole: PEFT's logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import lorakit
from lorakit.adapters.files import read_adapter
from lorakit.adapters.shards import shards
from lorakit.bases.load import load
from lorakit.errors import AdapterError
from lorakit.models import Model
from lorakit.runs.pointer import Pointer
from lorakit.verbs.merge import merge
from tests.attaching import attach_saved
from tests.tiers import unit_or_slow

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

IDS = torch.tensor([[3, 5, 20, 7, 41, 33]])
LAYERS = {"llama": ("embed_tokens", "lm_head", "q_proj"), "gpt2": ("wte", "lm_head", "c_attn")}
WHOLE = {"embedding": [0], "output layer": [1], "both": [0, 1]}


@pytest.fixture
def made(tiny, tokenizer, tmp_path):
    """`made(family, tied, whole, ...)` -> (base folder, adapter folder with random numbers)."""

    def made(family: str, tied: bool, whole: list[int], **fields: Any) -> tuple[Path, Path]:
        base, adapter = tmp_path / "base", tmp_path / "adapter"
        tiny(family, "CausalLM", tie_word_embeddings=tied).model.save_pretrained(base)
        tokenizer().save_pretrained(base)
        *layers, target = LAYERS[family]
        fields |= {"target_modules": [target], "modules_to_save": [layers[i] for i in whole]}
        config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, **fields)
        model = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), config)
        torch.manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.3 * torch.randn_like(parameter)
        model.save_pretrained(adapter)
        return base, adapter

    return made


@torch.no_grad()
def _theirs(base: Path, adapter: Path) -> torch.Tensor:
    plain = transformers.AutoModelForCausalLM.from_pretrained(base)
    return peft.PeftModel.from_pretrained(plain, adapter).eval()(IDS).logits


@pytest.mark.parametrize("together", [False, True], ids=["each", "ensure_weight_tying"])
@pytest.mark.parametrize("whole", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", unit_or_slow(LAYERS, ["llama"]))
@pytest.mark.filterwarnings("ignore")
def test_pefts_logits(made, tmp_path, family, tied, whole, together):
    base, adapter = made(family, tied, whole, ensure_weight_tying=together)
    wanted = _theirs(base, adapter)
    loaded = load(Model(name=str(base)), "causal")
    attach_saved(adapter, loaded)
    with torch.no_grad():
        ours = loaded.model.eval()(IDS).logits
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)
    for examples in (0, 4):
        to = tmp_path / f"merged{examples}"
        merge(Pointer(str(adapter), base=str(base)), to, examples=examples)
        model = transformers.AutoModelForCausalLM.from_pretrained(to).eval()
        with torch.no_grad():
            torch.testing.assert_close(model(IDS).logits, wanted, rtol=1e-4, atol=1e-4)


def test_an_adapter_that_does_not_fit_leaves_the_weights_tied(made):
    base, adapter = made("llama", True, [0])
    loaded = load(Model(name=str(base)), "causal")
    file = read_adapter(adapter)
    absent = "base_model.model.model.layers.7.self_attn.q_proj"
    file.tensors[f"{absent}.lora_A.weight"] = torch.zeros(2, 32)
    file.tensors[f"{absent}.lora_B.weight"] = torch.zeros(32, 2)
    with pytest.raises(AdapterError, match=r"layers\.7"):
        attach_saved(file, loaded)
    model: Any = loaded.model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert loaded.config.tie_word_embeddings


@pytest.mark.parametrize("whole", WHOLE.values(), ids=WHOLE)
@pytest.mark.filterwarnings("ignore")
def test_an_adapter_that_unties_the_weights_is_one_of_several(made, whole):
    base, adapter = made("gpt2", True, whole)
    wanted = _theirs(base, adapter)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    before = model(IDS).logits
    adapters = lorakit.Adapters(model)
    adapters.add("theirs", adapter)
    for _ in range(2):
        adapters.switch("theirs")
        torch.testing.assert_close(model(IDS).logits, wanted, rtol=1e-5, atol=1e-5)
        adapters.switch(None)
        assert torch.equal(model(IDS).logits, before)
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
        assert model.config.tie_word_embeddings


@pytest.mark.filterwarnings("ignore")
def test_tied_weights_of_which_one_is_changed_are_not_merged_by_file(made):
    base, adapter = made("llama", True, [0])
    assert shards(Model(name=str(base)), "causal", (), read_adapter(adapter)) is None
