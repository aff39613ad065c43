"""Commands on adapters that stock PEFT made, of kinds that change more than a product B A."""

from __future__ import annotations

import json

import pytest
import torch

from lorakit.adapters.files import CONFIG_FILE
from lorakit.bases.files import location

pytestmark = pytest.mark.peers
peft = pytest.importorskip("peft")


@pytest.fixture
def made(tmp_path):
    """`made(config)`: the folder of an adapter of the small GPT-2 that ships, with random
    numbers."""

    def make(config):
        from transformers import AutoModelForCausalLM

        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_pretrained(
            location("lorakit:tiny_gpt2"), dtype=torch.float32
        )
        model = peft.get_peft_model(base, config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.normal_(0, 0.05)
        model.save_pretrained(tmp_path / "made")
        return tmp_path / "made"

    return make


def test_a_prompt_is_refused_by_merge_in_one_sentence(made, lorakit_cli, tmp_path):
    path = made(peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    done = lorakit_cli("merge", path, "--to", tmp_path / "merged")
    assert done.code == 2
    assert "prefix_embedding" in done.err
    assert not (tmp_path / "merged").exists()


def test_trained_biases_stay_in_peft_form(made, lorakit_cli, tmp_path):
    fields = {"r": 2, "target_modules": ["c_attn"], "bias": "lora_only", "task_type": "CAUSAL_LM"}
    path = made(peft.LoraConfig(**fields))
    done = lorakit_cli("export", path, "--as", "peft", "--to", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    assert done.json["max_logit_difference"] <= 1e-5
    assert json.loads((tmp_path / "out" / CONFIG_FILE).read_text())["bias"] == "lora_only"
