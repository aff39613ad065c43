"""Several adapters that PEFT saved, on one base: PEFT's logits, alone and in a mixed batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import lorakit
from tests.conftest import END, PAD, VOCABULARY

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

IDS = torch.randint(3, VOCABULARY, (5, 7), generator=torch.Generator().manual_seed(0))
IDS[1, 5:] = PAD
IDS[3, 3:] = PAD
IDS[1, 4] = IDS[3, 2] = END
BATCH = {"input_ids": IDS, "attention_mask": (IDS != PAD).long()}
THEIRS = {
    "a": {"r": 4, "target_modules": ["query", "value"]},
    "b": {"r": 2, "lora_alpha": 6, "target_modules": ["query", "key", "intermediate.dense"]},
}


@pytest.fixture
def made(tiny, tmp_path) -> Path:
    """A base and two adapters with random numbers and heads."""
    tiny("bert").model.save_pretrained(tmp_path / "base")
    for seed, (name, fields) in enumerate(THEIRS.items()):
        config = peft.LoraConfig(task_type="SEQ_CLS", **fields)
        model = peft.get_peft_model(_base(tmp_path), config)
        torch.manual_seed(seed)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.3 * torch.randn_like(parameter)
        model.save_pretrained(tmp_path / name)
    return tmp_path


def _base(folder: Path) -> Any:
    found = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder / "base", dtype=torch.float32
    )
    return found.eval()


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_switched_and_mixed_the_logits_are_pefts(made):
    theirs = peft.PeftModel.from_pretrained(_base(made), made / "a", adapter_name="a")
    theirs.load_adapter(made / "b", adapter_name="b")
    theirs.eval()
    model = _base(made)
    adapters = lorakit.Adapters(model)
    for name in THEIRS:
        adapters.add(name, made / name)
        adapters.switch(name)
        theirs.set_adapter(name)
        torch.testing.assert_close(
            model(**BATCH).logits, theirs(**BATCH).logits, rtol=1e-6, atol=1e-6
        )
    for names in (["a", "b", "b", "a", "b"], ["b", "b", "a", "a", "a"]):
        wanted = theirs(**BATCH, adapter_names=names).logits
        with adapters.mix(names):
            torch.testing.assert_close(model(**BATCH).logits, wanted, rtol=1e-6, atol=1e-6)
