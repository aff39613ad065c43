"""PEFT adapters that lorakit refuses: what the message says to do gives the model that PEFT has."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorakit.adapters.foreign import NEVER_MERGED
from lorakit.bases.files import location
from lorakit.bases.load import load
from lorakit.errors import AdapterError
from lorakit.models import Model
from tests.attaching import attach_saved

BASE = location("lorakit:tiny_gpt2")
IDS = torch.tensor([[5, 6, 7, 8, 9, 3, 4]])


def _lora(*targets: str, **more):
    return peft.LoraConfig(r=2, target_modules=[*targets], task_type="CAUSAL_LM", **more)


def _other(kind: str, **more):
    return getattr(peft, kind)(task_type="CAUSAL_LM", **more)


MERGED = {
    "IA3": (_other("IA3Config", target_modules=["c_attn"], feedforward_modules=[]), "IA3"),
    "LN": (_other("LNTuningConfig", target_modules=["ln_1"]), "LN_TUNING"),
}
ALONE = {}
if "alora_invocation_tokens" in peft.LoraConfig.__dataclass_fields__:  # from 0.18 on
    config = _lora("c_attn", alora_invocation_tokens=[3, 4])
    ALONE["activated"] = (config, "alora_invocation_tokens")


def _plain():
    return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()


def _logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def _write(config, folder: Path) -> Path:
    """An adapter as PEFT trains it, with numbers."""
    torch.manual_seed(0)
    model = peft.get_peft_model(_plain(), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    file = folder / "adapter_config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(BASE)})
    )
    return folder


def _refused(folder: Path) -> str:
    base = load(Model(name="lorakit:tiny_gpt2"), "causal")
    with pytest.raises(AdapterError) as error:
        attach_saved(folder, base)
    return str(error.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", MERGED)
def test_merged_as_the_message_says_it_is_the_model_that_peft_has(kind, tmp_path):
    config, named = MERGED[kind]
    folder = _write(config, tmp_path / "adapter")
    said = _refused(folder)
    assert named in said
    assert "merge_and_unload" in said
    wanted = _logits(peft.PeftModel.from_pretrained(_plain(), folder).eval())
    base = _plain()
    merged = peft.PeftModel.from_pretrained(base, folder).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(BASE).save_pretrained(tmp_path / "merged")
    found = _logits(load(Model(name=str(tmp_path / "merged")), "causal").model.eval())
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ALONE)
def test_what_peft_cannot_merge_is_said(kind, tmp_path):
    config, named = ALONE[kind]
    folder = _write(config, tmp_path / "adapter")
    said = _refused(folder)
    assert named in said
    assert "merge_and_unload" not in said
    model = peft.PeftModel.from_pretrained(_plain(), folder)
    with pytest.raises((AttributeError, NotImplementedError)):
        model.merge_and_unload()


def test_the_types_that_are_never_merged_are_types_of_peft():
    assert {kind.value for kind in peft.PeftType} >= NEVER_MERGED - {"CARTRIDGE", "LILY", "SHADOW"}
