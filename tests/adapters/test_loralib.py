"""Checkpoints of microsoft/LoRA, made with loralib: the imported model gives their logits."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest
import torch

from lorakit.adapters.checkpoint import read_checkpoint
from lorakit.adapters.loralib import state_of
from lorakit.errors import AdapterError
from lorakit.methods.reparam.lora import LoRA
from tests.attaching import attach
from tests.parity.compare import EXACT, SAME, gap, replace_layer

pytestmark = pytest.mark.peers
loralib = pytest.importorskip("loralib")

R, ALPHA = 4, 6
PATHS = {
    "roberta": [
        f"roberta.encoder.layer.{i}.attention.self.{role}"
        for i in range(2)
        for role in ("query", "value")
    ],
    "deberta-v2": [
        f"deberta.encoder.layer.{i}.attention.self.{role}_proj"
        for i in range(2)
        for role in ("query", "value")
    ],
    "gpt2": [f"transformer.h.{i}.attn.c_attn" for i in range(2)],
}
"""The modules' names in R NLU modeling_roberta.py, NLU modeling_deberta_v2.py, NLG model.py."""
FAMILIES = list(PATHS)


def head_of(family: str) -> str:
    return "CausalLM" if family == "gpt2" else "SequenceClassification"


def make_theirs(tiny, family: str, enabled=(True, False, True), **layer: Any) -> Any:
    """The base with loralib's layers in it, trained: A, B and the head are random."""
    theirs = tiny(family, head_of(family), dtype=EXACT)
    for path in PATHS[family]:
        if family == "gpt2":
            sides = {"enable_lora": list(enabled), "fan_in_fan_out": True}
            new = loralib.MergedLinear(32, 96, r=R, lora_alpha=ALPHA, **sides, **layer)
        else:
            new = loralib.Linear(32, 32, r=R, lora_alpha=ALPHA, **layer)
        replace_layer(theirs, path, new)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in theirs.model.named_parameters():
            if "lora_" in name or name in theirs.newly_initialised:
                parameter.copy_(
                    torch.empty(parameter.shape).normal_(std=0.3, generator=generator)
                )  # as files hold it
    theirs.model.train()
    return theirs


def trained_alone(theirs: Any) -> dict[str, torch.Tensor]:
    """What `*_lora_*.bin` and `.pt` hold: LoRA's tensors and the head."""
    return {
        k: v
        for k, v in theirs.model.state_dict().items()
        if "lora_" in k or k in theirs.newly_initialised
    }


@torch.no_grad()
def their_logits(theirs: Any) -> torch.Tensor:
    """Without `eval()`, which merges; there is no dropout."""
    return theirs.model.train()(**theirs.inputs).logits


@pytest.fixture
def imported(tiny, tmp_path):
    """imported(family, checkpoint, **LoRA's fields) -> our model with what was saved on it."""

    def run(family: str, checkpoint: Any, **fields: Any) -> Any:
        torch.save(checkpoint, tmp_path / "checkpoint.bin")
        ours = tiny(family, head_of(family), dtype=EXACT)
        with torch.no_grad():
            for name in ours.newly_initialised:
                ours.model.get_parameter(name).zero_()
        attachment = attach(LoRA(**{"r": R, "alpha": ALPHA, **fields}), ours)
        attachment.load_state(state_of(attachment, read_checkpoint(tmp_path / "checkpoint.bin")))
        return ours

    return run


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_logits(tiny, imported, family):
    theirs = make_theirs(tiny, family)
    checkpoint = trained_alone(theirs)
    assert len(checkpoint) == 2 * len(PATHS[family]) + len(theirs.newly_initialised)
    ours = imported(family, checkpoint)
    assert gap(ours.logits(), their_logits(theirs)) <= SAME
    plain = tiny(family, head_of(family), dtype=EXACT)
    assert gap(plain.logits(), their_logits(theirs)) > 1e-2


class _Reference(loralib.Linear):
    """W_q as in the reference modeling_deberta_v2.py: the one-row position table has no dW."""

    def forward(self, x):
        return torch.nn.Linear.forward(self, x) if x.shape[0] == 1 else super().forward(x)


def test_what_the_format_cannot_say_of_deberta(tiny, imported):
    """Where W_q reads the positions too; the guide and a warning say so."""
    theirs = make_theirs(tiny, "deberta-v2")
    wanted = their_logits(theirs)
    for path in PATHS["deberta-v2"][::2]:
        theirs.model.get_submodule(path).__class__ = _Reference
    assert theirs.config.share_att_key
    assert gap(their_logits(theirs), wanted) > 1e-3
    assert gap(imported("deberta-v2", trained_alone(theirs)).logits(), wanted) <= SAME


def test_the_layout_of_c_attn():
    """A (2 r, d), B (2 d, r): the published shapes of GPT-2 medium's checkpoint, r = 4."""
    layer = loralib.MergedLinear(
        1024, 3072, r=4, enable_lora=[True, False, True], fan_in_fan_out=True
    )
    assert (layer.lora_A.shape, layer.lora_B.shape) == ((8, 1024), (2048, 4))


@pytest.mark.parametrize("wrap", ["parallel", "nested", "both", "below the body", "half precision"])
@pytest.mark.parametrize("family", ["gpt2", "roberta"])
def test_every_wrapping(tiny, imported, family, wrap):
    """gpt2_ft.py saves {"model_state_dict": ...} of a model in DistributedDataParallel.

    load_weight also takes names below `transformer`.
    """
    theirs = make_theirs(tiny, family)
    checkpoint: Any = trained_alone(theirs)
    if wrap in ("parallel", "both"):
        checkpoint = {f"module.{k}": v for k, v in checkpoint.items()}
    if wrap in ("nested", "both"):
        checkpoint = {"model_state_dict": checkpoint}
    if wrap == "below the body":
        checkpoint = {
            k.removeprefix(f"{theirs.model.base_model_prefix}."): v for k, v in checkpoint.items()
        }
    if wrap == "half precision":
        checkpoint = {k: v.half() for k, v in checkpoint.items()}
    ours = imported(family, checkpoint)
    assert gap(ours.logits(), their_logits(theirs)) <= (5e-3 if wrap == "half precision" else SAME)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_model(tiny, imported, family, caplog):
    """The scripts save all of it; what is the base's is compared with the base, and left out."""
    theirs = make_theirs(tiny, family, merge_weights=False)
    checkpoint = theirs.model.state_dict()
    if family == "gpt2":
        checkpoint["lm_head.decoder.weight"] = checkpoint.pop("lm_head.weight")
        checkpoint["transformer.h.0.attn.bias"] = torch.ones(1, 1, 40, 40)
    with caplog.at_level(logging.WARNING):
        ours = imported(family, checkpoint)
    assert gap(ours.logits(), their_logits(theirs)) <= SAME
    assert not caplog.messages


@pytest.mark.parametrize("family", FAMILIES)
class TestSavedMerged:
    """As the Trainer saves RoBERTa after an evaluation: dW in the weights, and A and B too."""

    def test_dw_is_added_once(self, tiny, imported, family, caplog):
        theirs = make_theirs(tiny, family, merge_weights=True)
        wanted = their_logits(theirs)
        theirs.model.eval()
        checkpoint = {k: v.clone() for k, v in theirs.model.state_dict().items()}
        ours = imported(family, checkpoint)
        assert gap(ours.logits(), wanted) <= SAME
        assert "were saved merged" in caplog.text

    def test_alpha_is_known_then(self, tiny, imported, family):
        theirs = make_theirs(tiny, family, merge_weights=True)
        theirs.model.eval()
        with pytest.raises(AdapterError, match=r"1\.5.*method\.alpha=6"):
            imported(family, theirs.model.state_dict(), alpha=16)


class TestRefused:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_another_rank(self, tiny, imported, family):
        with pytest.raises(AdapterError, match=r"rank 8 .* method\.r=4"):
            imported(family, trained_alone(make_theirs(tiny, family)), r=8)

    def test_other_parts(self, tiny, imported):
        """A checkpoint of q, k and v."""
        theirs = make_theirs(tiny, "gpt2", enabled=(True, True, True))
        with pytest.raises(AdapterError, match=r"lora_A \(12, 32\) and lora_B \(96, 4\)"):
            imported("gpt2", trained_alone(theirs))
        ours = imported("gpt2", trained_alone(theirs), targets=("v", "q", "k"))
        assert gap(ours.logits(), their_logits(theirs)) <= SAME

    def test_targets_that_were_not_adapted(self, tiny, imported):
        with pytest.raises(AdapterError, match=r"self\.key\.lora_A.*method\.targets"):
            imported("roberta", trained_alone(make_theirs(tiny, "roberta")), targets=("key",))

    def test_half_of_a_pair(self, tiny, imported):
        checkpoint = trained_alone(make_theirs(tiny, "roberta"))
        del checkpoint[f"{PATHS['roberta'][1]}.lora_B"]
        with pytest.raises(AdapterError, match=r"value\.lora_B"):
            imported("roberta", checkpoint)

    def test_a_pair_too_many(self, tiny, imported):
        checkpoint = trained_alone(make_theirs(tiny, "roberta"))
        with pytest.raises(AdapterError, match=r"value\.lora_A"):
            imported("roberta", checkpoint, targets=("query",))

    def test_no_head(self, tiny, imported):
        theirs = make_theirs(tiny, "roberta")
        checkpoint = loralib.lora_state_dict(theirs.model)
        with pytest.raises(AdapterError, match=r"classifier\.dense\.bias"):
            imported("roberta", checkpoint)

    def test_a_head_of_other_labels(self, tiny, imported):
        checkpoint = trained_alone(make_theirs(tiny, "roberta"))
        checkpoint["classifier.out_proj.weight"] = torch.zeros(3, 32)
        with pytest.raises(AdapterError, match=r"out_proj\.weight.*\(3, 32\).*\(2, 32\)"):
            imported("roberta", checkpoint)

    def test_merged_and_left_out(self, tiny, imported):
        theirs = make_theirs(tiny, "roberta")
        theirs.model.eval()
        checkpoint = {k: v for k, v in theirs.model.state_dict().items() if "lora_" not in k}
        with pytest.raises(AdapterError, match=r"does not hold lora_A"):
            imported("roberta", checkpoint)

    def test_another_base(self, tiny, imported):
        theirs = make_theirs(tiny, "roberta")
        checkpoint = theirs.model.state_dict()
        checkpoint[f"{PATHS['roberta'][0]}.weight"] = torch.randn(32, 32)
        with pytest.raises(AdapterError, match=r"query\.weight is neither"):
            imported("roberta", checkpoint)

    def test_biases_that_were_trained(self, tiny, imported):
        """lora_state_dict(model, bias="all") after training them."""
        theirs = make_theirs(tiny, "roberta")
        checkpoint = loralib.lora_state_dict(theirs.model, bias="all") | trained_alone(theirs)
        imported("roberta", checkpoint)  # as the base has them
        checkpoint[f"{PATHS['roberta'][0]}.bias"] = checkpoint[f"{PATHS['roberta'][0]}.bias"] + 1
        with pytest.raises(AdapterError, match=r"query\.bias"):
            imported("roberta", checkpoint)

    def test_a_model_of_another_size(self, tiny, imported):
        checkpoint = trained_alone(make_theirs(tiny, "roberta"))
        checkpoint |= {k: torch.zeros(R, 48) for k in checkpoint if k.endswith("query.lora_A")}
        with pytest.raises(AdapterError, match=r"lora_A \(4, 48\)"):
            imported("roberta", checkpoint)

    def test_numbers_that_are_not_finite(self, tiny, imported):
        checkpoint = trained_alone(make_theirs(tiny, "roberta"))
        checkpoint["classifier.dense.bias"][3] = torch.nan
        with pytest.raises(AdapterError, match=r"not finite, in classifier\.dense\.bias"):
            imported("roberta", checkpoint)


class _Code:
    def __reduce__(self):
        return (open, ("this-was-run", "w"))


class TestReading:
    def test_code_is_not_run(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name, save in (
            ("zip.bin", torch.save),
            ("plain.bin", lambda o, f: f.write_bytes(pickle.dumps(o, protocol=2))),
        ):
            save({"a": torch.zeros(1) if save is torch.save else 0, "b": _Code()}, tmp_path / name)
            with pytest.raises(AdapterError, match=r"\w+\.open"):
                read_checkpoint(tmp_path / name)
        assert not (tmp_path / "this-was-run").exists()

    @pytest.mark.parametrize(
        ("held", "why"),
        [
            ([torch.zeros(1)], "list"),
            ({}, "dict"),
            ({"a": 3}, "'a'"),
            ({"optimizer": {"a": torch.zeros(1)}}, "'optimizer'"),
        ],
    )
    def test_no_state_dict(self, tmp_path, held, why):
        torch.save(held, tmp_path / "x.pt")
        with pytest.raises(AdapterError, match=why):
            read_checkpoint(tmp_path / "x.pt")

    def test_no_checkpoint(self, tmp_path):
        with pytest.raises(AdapterError, match=r"x\.pt.*No such file"):
            read_checkpoint(tmp_path / "x.pt")
        (tmp_path / "x.pt").write_text("version https://git-lfs.github.com/spec/v1\n")
        with pytest.raises(AdapterError, match=r"x\.pt"):
            read_checkpoint(tmp_path / "x.pt")
        torch.save({"a": torch.zeros(1000)}, tmp_path / "y.pt")
        (tmp_path / "y.pt").write_bytes((tmp_path / "y.pt").read_bytes()[:900])
        with pytest.raises(AdapterError, match=r"y\.pt"):
            read_checkpoint(tmp_path / "y.pt")
