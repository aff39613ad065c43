"""`lorakit import`, then eval, merge and PEFT on what it wrote: all have the logits of loralib's
own model."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from lorakit.adapters.files import read_adapter
from tests.rounding import assert_near

pytestmark = pytest.mark.peers
SHIPPED = 2048
"""Terms on the way through a model that ships: three layers of 128 and 512 numbers."""
loralib = pytest.importorskip("loralib")

TEXTS = ["the juice was good, good even", "the bill was bad, even poor", "lovely"]


@torch.no_grad()
def _with_loralib(base: str, cls: str, make) -> Any:
    """The tiny base with `make(layer)` for each layer of query and value (or both), A, B and head
    random."""
    import transformers

    folder = str(files("lorakit") / "assets" / base)
    model = getattr(transformers, cls).from_pretrained(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(3)
    for path, old in list(model.named_modules()):
        if path.endswith(("self.query", "self.value", "attn.c_attn")):
            new = make(old)
            new.weight.copy_(old.weight)
            new.bias.copy_(old.bias)
            parent, name = path.rsplit(".", 1)
            setattr(model.get_submodule(parent), name, new)
    for name, parameter in model.named_parameters():
        if "lora_" in name or name.startswith("classifier"):
            parameter.normal_(std=0.1, generator=generator)
    return model


@pytest.fixture
def encoder(tmp_path) -> tuple[Any, Path]:
    """As roberta_base_lora_mnli.bin: LoRA and the head, nothing else."""
    model = _with_loralib(
        "tiny_encoder",
        "AutoModelForSequenceClassification",
        lambda old: loralib.Linear(128, 128, r=8, lora_alpha=16),
    )
    held = {
        k: v for k, v in model.state_dict().items() if "lora_" in k or k.startswith("classifier")
    }
    torch.save(held, tmp_path / "reference.bin")
    return model, tmp_path / "reference.bin"


@pytest.fixture
def decoder(tmp_path) -> tuple[Any, Path]:
    """As gpt2_md_lora_e2e.pt: of a model in DistributedDataParallel, nested."""

    def layer(old: Any) -> Any:
        width = old.weight.shape[0]
        return loralib.MergedLinear(
            width,
            3 * width,
            r=4,
            lora_alpha=32,
            enable_lora=[True, False, True],
            fan_in_fan_out=True,
            merge_weights=False,
        )

    model = _with_loralib("tiny_gpt2", "AutoModelForCausalLM", layer)
    held = {f"module.{k}": v for k, v in loralib.lora_state_dict(model).items()}
    torch.save({"model_state_dict": held}, tmp_path / "reference.pt")
    return model, tmp_path / "reference.pt"


@torch.no_grad()
def _logits(model: Any, base: str) -> torch.Tensor:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(files("lorakit") / "assets" / base))
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return model(**tokenizer(TEXTS, return_tensors="pt", padding=True)).logits


def _in_peft(folder: Path, base: str, cls: str) -> Any:
    import transformers

    peft = pytest.importorskip("peft")
    model = getattr(transformers, cls).from_pretrained(
        str(files("lorakit") / "assets" / base), dtype=torch.float32
    )
    return peft.PeftModel.from_pretrained(model, folder).eval()


def test_a_classifier(encoder, lorakit_cli, tmp_path):
    model, file = encoder
    done = lorakit_cli("import", file, "quickstart", "--to", tmp_path / "adapter", "--json")
    assert done.code == 0
    assert done.json == {
        "adapter": str(tmp_path / "adapter"),
        "base": "lorakit:tiny_encoder",
        "task": "classification",
        "r": 8,
        "alpha": 16.0,
        "sites": 6,
        "trainable": 12288,
        "fresh": 16770,
        "total": 665730,
    }
    wanted = _logits(
        model.train(), "tiny_encoder"
    )  # loralib would merge in eval(); its dropout is 0
    found = _logits(
        _in_peft(tmp_path / "adapter", "tiny_encoder", "AutoModelForSequenceClassification"),
        "tiny_encoder",
    )
    assert_near(found, wanted, SHIPPED)
    small = "data.limit.validation=16"
    scored = lorakit_cli("eval", tmp_path / "adapter", small, "--json")
    assert scored.code == 0
    lines = [json.loads(line) for line in Path(scored.json["files"][0]).read_text().splitlines()]
    assert len(lines) == 16
    merged = lorakit_cli(
        "merge", tmp_path / "adapter", "--to", tmp_path / "merged", small, "--json"
    )
    assert merged.code == 0
    assert merged.json["max_logit_difference"] < 1e-5


def test_a_decoder(decoder, lorakit_cli, tmp_path):
    model, file = decoder
    numbers = ["method.r=4", "method.alpha=32", "~expect"]
    done = lorakit_cli(
        "import", file, "quickstart_generate", "--to", tmp_path / "adapter", *numbers, "--json"
    )
    assert done.code == 0, done.err
    assert (done.json["r"], done.json["alpha"], done.json["fresh"]) == (4, 32, 0)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (8, 64, ["c_attn"])
    found = _logits(
        _in_peft(tmp_path / "adapter", "tiny_gpt2", "AutoModelForCausalLM"), "tiny_gpt2"
    )
    assert_near(found, _logits(model.train(), "tiny_gpt2"), SHIPPED)
    said = lorakit_cli(
        "generate", tmp_path / "adapter", "--prompt", "name: Lucky Fox", "decode.max_new_tokens=4"
    )
    assert said.code == 0


def test_a_base_with_a_chat_template(decoder, lorakit_cli, tmp_path):
    _, file = decoder
    base = shutil.copytree(str(files("lorakit") / "assets" / "tiny_gpt2"), tmp_path / "base")
    (base / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    numbers = ["method.r=4", "method.alpha=32", "~expect", f"model.name={base}"]
    done = lorakit_cli("import", file, "quickstart_generate", "--to", tmp_path / "a", *numbers)
    assert done.code == 0, done.err
    assert (tmp_path / "a" / "chat_template.jinja").is_file()
    assert read_adapter(tmp_path / "a").about is not None


def test_alpha_changes_what_is_computed(encoder, lorakit_cli, tmp_path):
    """It is in no file, so a wrong one is a wrong model; see the note in the guide."""
    _, file = encoder
    done = lorakit_cli(
        "import", file, "quickstart", "method.alpha=8", "--to", tmp_path / "a", "--json"
    )
    assert done.json["alpha"] == 8
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_text())["lora_alpha"] == 8


def test_what_is_refused(encoder, lorakit_cli, tmp_path):
    _, file = encoder
    to = tmp_path / "adapter"
    for arguments, why in [
        (["quickstart", "method.r=4"], "Give method.r=8"),
        (["quickstart", "~method", "method=full"], "trains full"),
        (["glue_nothing"], "glue_nothing"),
        (["quickstart_generate"], "lora_A"),
    ]:
        done = lorakit_cli("import", file, *arguments, "--to", to)
        assert (done.code, why in done.err) == (2, True), done.err
        assert not to.exists()
    to.mkdir()
    (to / "x").touch()
    done = lorakit_cli("import", file, "quickstart", "--to", to)
    assert "is not empty" in done.err
    torch.save({k: v * 0 for k, v in torch.load(file).items()}, file)
    assert "B A is zero on" in lorakit_cli("import", file, "quickstart", "--to", tmp_path / "b").err


def test_share_att_key_is_said(tiny, lorakit_cli, tmp_path, tokenizer):
    """The reference code reads positions without dW there, and nobody else does."""
    model = tiny("deberta-v2")
    model.model.save_pretrained(tmp_path / "base")
    tokenizer().save_pretrained(tmp_path / "base")
    held = {f"classifier.{k}": v for k, v in model.model.classifier.state_dict().items()}
    held |= {f"pooler.{k}": v for k, v in model.model.pooler.state_dict().items()}
    for i in range(2):
        for role in ("query", "value"):
            path = f"deberta.encoder.layer.{i}.attention.self.{role}_proj"
            held |= {f"{path}.lora_A": torch.randn(16, 32), f"{path}.lora_B": torch.randn(32, 16)}
    torch.save(held, tmp_path / "deberta.bin")
    base = f"model.name={tmp_path / 'base'}"
    numbers = ["method.r=16", "method.alpha=32"]
    done = lorakit_cli(
        "import", tmp_path / "deberta.bin", "quickstart", base, *numbers, "--to", tmp_path / "a"
    )
    assert done.code == 0, done.err
    assert "leaves dW out where W_q reads relative positions" in done.err
