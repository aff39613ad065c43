"""lorakit and PEFT: the same product, the same training, and each reads what the other wrote."""

from __future__ import annotations

import copy
import json
import warnings

import pytest
import torch

from lorakit.adapters.files import CONFIG_FILE, PEFT_FILE
from lorakit.adapters.save import save_adapter
from lorakit.methods.reparam import Target
from lorakit.methods.reparam.lora import LoRA
from lorakit.nn.linear import weight_of
from lorakit.nn.lowrank import Projection
from tests.attaching import attach, attach_saved
from tests.parity.compare import EXACT, SAME, TEN_STEPS, gap, losses_of_ten_steps
from tests.rounding import assert_near

pytestmark = pytest.mark.peers
peft = pytest.importorskip("peft")

CLASSIFIER, CAUSAL = "SequenceClassification", "CausalLM"
# the same weights for both: PEFT knows whole modules only, so c_attn is one target for lorakit too
PAIRS = [
    ("roberta", CLASSIFIER, ["query", "value"]),
    ("gpt2", CLASSIFIER, ["c_attn"]),
    ("gpt2", CAUSAL, ["c_attn", "c_fc"]),
    ("llama", CAUSAL, ["q_proj", "v_proj", "down_proj"]),
    ("gpt_neox", CAUSAL, ["query_key_value"]),
    ("t5", CLASSIFIER, ["q", "v"]),
]
IDS = [f"{family}-{head}" for family, head, _ in PAIRS]
TASK = {CLASSIFIER: "SEQ_CLS", CAUSAL: "CAUSAL_LM"}


def _wrap(model, family, head, **fields):
    """The model in PEFT, which warns of fan_in_fan_out and does not know the name of T5's head."""
    if family == "t5":
        fields["modules_to_save"] = ["classification_head"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(model.model, peft.LoraConfig(task_type=TASK[head], **fields))


def _ours(tiny, family, head, targets, **fields):
    model = tiny(family, head, dtype=EXACT)
    torch.manual_seed(0)
    # without the dot lorakit would read T5's q and v as roles, which would be another test
    patterns = tuple(f"*.{target}" for target in targets)
    return model, attach(LoRA(targets=patterns, r=4, alpha=6, **fields), model)


def _theirs(tiny, family, head, targets, **fields):
    model = tiny(family, head, dtype=EXACT)
    wrapped = _wrap(model, family, head, target_modules=targets, r=4, lora_alpha=6, **fields)
    for name in model.newly_initialised:  # PEFT copies the head
        assert wrapped.get_parameter(_peft_name(name)).requires_grad
    model.model = wrapped
    return model, wrapped


def _peft_name(name: str) -> str:
    top = name.split(".")[0]
    return f"base_model.model.{top}.modules_to_save.default.{name.removeprefix(top + '.')}"


def _factors(wrapped, path: str):
    layer = wrapped.get_submodule(f"base_model.model.{path}")
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight


@torch.no_grad()
def _copy_factors(attachment, wrapped, fill: bool = True) -> None:
    generator = torch.Generator().manual_seed(7)
    for path, delta in attachment.deltas.items():
        a, b = _factors(wrapped, path)
        if fill:
            delta.B.normal_(std=0.3, generator=generator)
        a.copy_(delta.A)
        b.copy_(delta.B)


@pytest.fixture(params=PAIRS, ids=IDS)
def pair(request, tiny):
    """(our model, our attachment, their model, PEFT's wrapper) with the same A, B and head."""
    family, head, targets = request.param
    ours, attachment = _ours(tiny, family, head, targets)
    theirs, wrapped = _theirs(tiny, family, head, targets)
    assert len(attachment.sites) == sum("lora_A" in n for n, _ in wrapped.named_parameters()) > 0
    _copy_factors(attachment, wrapped)
    return ours, attachment, theirs, wrapped


def test_forward(pair, tiny):
    ours, attachment, theirs, _ = pair
    assert gap(ours.logits(), theirs.logits()) <= SAME
    with attachment.off():
        assert (ours.logits() - theirs.logits()).abs().max() > 1e-2


def test_gradients(pair):
    ours, attachment, theirs, wrapped = pair
    ours.loss().backward()
    theirs.loss().backward()
    for path, delta in attachment.deltas.items():
        a, b = _factors(wrapped, path)
        assert delta.A.grad.abs().max() > 0
        assert gap(delta.A.grad, a.grad) <= SAME
        assert gap(delta.B.grad, b.grad) <= SAME
    for name in ours.newly_initialised:
        their = wrapped.get_parameter(_peft_name(name))
        assert_near(ours.model.get_parameter(name).grad, their.grad)


def test_merged_weights(pair):
    ours, attachment, theirs, wrapped = pair
    attachment.merge()
    theirs.model = wrapped.merge_and_unload()
    plain = theirs.model.state_dict()
    for name, value in ours.model.state_dict().items():
        assert_near(value, plain[name])
    assert gap(ours.logits(), theirs.logits()) <= SAME


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_training_step_by_step(pair, dropout):
    """AdamW from the same A and B = 0, ten steps: the same losses, the same weights.

    Dropout is torch's, and each site's own, as in PEFT, so that both draw the same.
    """
    ours, attachment, theirs, wrapped = pair
    with torch.no_grad():
        for path, delta in attachment.deltas.items():
            delta.B.zero_()
            delta.share(Projection([delta], dropout), 0)
            _factors(wrapped, path)[1].zero_()
    if dropout:
        for module in wrapped.modules():
            if hasattr(module, "lora_dropout"):
                module.lora_dropout["default"] = torch.nn.Dropout(dropout)
    losses = []
    for model, parameters in (
        (ours, list(attachment.trained().values())),
        (theirs, [p for p in wrapped.parameters() if p.requires_grad]),
    ):
        model.model.train()
        torch.manual_seed(11)
        losses.append(losses_of_ten_steps(model, parameters))
    assert losses[0] == pytest.approx(losses[1], rel=TEN_STEPS)
    assert losses[0][-1] != losses[0][0]
    for path, delta in attachment.deltas.items():
        a, b = _factors(wrapped, path)
        assert float((delta.A - a).abs().max()) <= TEN_STEPS
        assert float((delta.B - b).abs().max()) <= TEN_STEPS


@pytest.mark.parametrize(("init", "theirs"), [("kaiming", True), ("gaussian", "gaussian")])
def test_a_starts_in_pefts_distribution(tiny, init, theirs):
    model, path = tiny("gpt2", CAUSAL, dtype=EXACT), "transformer.h.0.mlp.c_proj"
    _, wrapped = _theirs(tiny, "gpt2", CAUSAL, ["mlp.c_proj"], init_lora_weights=theirs)
    delta = (
        LoRA(targets=("mlp.c_proj",), r=4, alpha=6, init=init).attach(model.model, {}).deltas[path]
    )
    a, b = _factors(wrapped, path)
    assert a.shape == delta.A.shape
    assert not b.any()
    assert not delta.B.any()
    assert delta.A.std().item() == pytest.approx(a.std().item(), rel=0.15)
    assert delta.A.abs().max().item() == pytest.approx(
        a.abs().max().item(), rel=0.03 if init == "kaiming" else 0.4
    )


# PEFT reads what lorakit wrote

OUT = [
    ("roberta", CLASSIFIER, {}),
    ("roberta", CLASSIFIER, {"targets": "all-linear"}),
    (
        "roberta",
        CLASSIFIER,
        {"targets": ("query", Target(match="o", r=2), Target(match="mlp_in", alpha=3))},
    ),
    ("distilbert", CLASSIFIER, {}),
    ("deberta", CLASSIFIER, {}),
    ("deberta-v2", CLASSIFIER, {"dropout": 0.1}),
    ("gpt2", CLASSIFIER, {}),
    ("gpt2", CAUSAL, {}),
    ("gpt2", CAUSAL, {"targets": "value"}),
    ("gpt2", CAUSAL, {"targets": ("q", "k", "v", "o", "up", "down"), "r": 3, "alpha": 5.5}),
    ("gpt2", CAUSAL, {"targets": ("query", Target(match="value", r=2, alpha=3))}),
    ("gpt2", CAUSAL, {"targets": "all-linear"}),
    ("gpt_neox", CAUSAL, {}),
    ("bloom", CAUSAL, {}),
    ("opt", CAUSAL, {}),
    ("llama", CAUSAL, {}),
    ("llama", CLASSIFIER, {"targets": "all-linear"}),
    ("llama", CAUSAL, {"targets": ("q", Target(match="layers.1.mlp.down_proj", r=2, alpha=1))}),
    ("phi3", CAUSAL, {}),
    ("t5", CLASSIFIER, {}),
]


def _saved(tiny, about, tmp_path, family, head, fields):
    model = tiny(family, head, dtype=EXACT)
    torch.manual_seed(0)
    attachment = attach(LoRA(**fields), model)
    model.step(attachment, steps=3)
    kind = {"base": "base", "head": "causal" if head == CAUSAL else "classification"}
    save_adapter(tmp_path / "adapter", attachment, about(model, attachment, **kind))
    return model, attachment


@pytest.mark.parametrize(("family", "head", "fields"), OUT, ids=str)
def test_stock_peft_reads_our_folder(tiny, about, tmp_path, family, head, fields):
    model, _ = _saved(tiny, about, tmp_path, family, head, fields)
    base = tiny(family, head, seed=0, dtype=EXACT)
    with torch.no_grad():
        for (
            name
        ) in base.newly_initialised:  # another random head, as a checkpoint without one gives it
            base.model.get_parameter(name).normal_(generator=torch.Generator().manual_seed(4))
    plain = base.logits()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        base.model = peft.PeftModel.from_pretrained(base.model, tmp_path / "adapter")
    said = [str(w.message) for w in caught]
    assert not [
        text for text in said if "missing" in text.lower() or "unexpected" in text.lower()
    ], said
    assert gap(base.logits(), model.logits()) <= SAME
    assert (plain - model.logits()).abs().max() > 1e-3
    again = base.model.load_adapter(tmp_path / "adapter", "again")
    assert not [key for key in again.missing_keys if "again" in key]
    assert again.unexpected_keys == []


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_transformers_own_loader_reads_our_folder(tiny, about, tmp_path, family):
    model, _ = _saved(tiny, about, tmp_path, family, CAUSAL, {})
    other = tiny(family, CAUSAL, dtype=EXACT)
    other.model.load_adapter(str(tmp_path / "adapter"))
    assert gap(other.logits(), model.logits()) <= SAME


def test_peft_merges_our_folder(tiny, about, tmp_path):
    model, attachment = _saved(tiny, about, tmp_path, "gpt2", CAUSAL, {})
    base = tiny("gpt2", CAUSAL, dtype=EXACT)
    base.model = peft.PeftModel.from_pretrained(base.model, tmp_path / "adapter").merge_and_unload()
    before = weight_of(tiny("gpt2", CAUSAL, dtype=EXACT).model.transformer.h[0].attn.c_attn)
    merged = weight_of(base.model.transformer.h[0].attn.c_attn)
    assert torch.equal(merged[32:64], before[32:64])  # the keys
    attachment.merge()
    assert gap(model.logits(), base.logits()) <= SAME


def test_peft_saves_our_tensors_again_bit_for_bit(tiny, about, tmp_path):
    from safetensors.torch import load_file

    _saved(tiny, about, tmp_path, "gpt2", CAUSAL, {})
    wrapped = peft.PeftModel.from_pretrained(
        tiny("gpt2", CAUSAL, dtype=EXACT).model, tmp_path / "adapter"
    )
    wrapped.save_pretrained(tmp_path / "theirs")
    ours, theirs = (load_file(tmp_path / f / PEFT_FILE) for f in ("adapter", "theirs"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


# lorakit reads what PEFT wrote

IN = [
    ("roberta", CLASSIFIER, {"target_modules": ["query", "value"]}),
    ("roberta", CLASSIFIER, {"target_modules": ["query", "value"], "use_rslora": True}),
    ("roberta", CLASSIFIER, {"target_modules": "all-linear"}),
    (
        "roberta",
        CLASSIFIER,
        {
            "target_modules": ["query", "dense"],
            "rank_pattern": {"query": 2, r"layer.1.*dense": 3},
            "alpha_pattern": {r"attention.self.query": 7, r"layer\.0\..*": 5},
            "lora_alpha": 9,
        },
    ),
    (
        "roberta",
        CLASSIFIER,
        {"target_modules": ["query"], "alpha_pattern": {"query": 7}, "use_rslora": True},
    ),
    (
        "roberta",
        CLASSIFIER,
        {"target_modules": ["query"], "layers_to_transform": [1], "lora_dropout": 0.2},
    ),
    ("roberta", CLASSIFIER, {"target_modules": ["key"], "init_lora_weights": "gaussian"}),
    (
        "distilbert",
        CLASSIFIER,
        {"target_modules": ["q_lin"], "modules_to_save": ["pre_classifier", "classifier"]},
    ),
    ("gpt2", CAUSAL, {}),
    ("gpt2", CAUSAL, {"target_modules": "all-linear", "r": 3, "lora_alpha": 5}),
    ("gpt2", CLASSIFIER, {}),
    ("llama", CAUSAL, {"exclude_modules": ["down_proj"], "target_modules": "all-linear"}),
    (
        "llama",
        CAUSAL,
        {"target_modules": r".*layers\.1\..*_proj", "init_lora_weights": "orthogonal"},
    ),
    ("t5", CLASSIFIER, {}),
    ("gpt_neox", CAUSAL, {}),
]


@torch.no_grad()
def _train_a_little(model) -> None:
    for parameter in model.model.parameters():
        if parameter.requires_grad:
            parameter.add_(
                torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())
                )
                / 10
            )


@pytest.mark.parametrize(("family", "head", "fields"), IN, ids=str)
def test_we_read_what_peft_saved(tiny, about, tmp_path, family, head, fields):
    model = tiny(family, head, dtype=EXACT)
    torch.manual_seed(0)
    model.model = _wrap(model, family, head, **copy.deepcopy(fields))
    _train_a_little(model)
    model.model.save_pretrained(tmp_path)
    assert "lorakit" not in json.loads((tmp_path / CONFIG_FILE).read_text())
    other = tiny(family, head, dtype=EXACT)
    plain = other.logits()
    attachment = attach_saved(tmp_path, other)
    assert gap(other.logits(), model.logits()) <= SAME
    assert (plain - model.logits()).abs().max() > 1e-3
    attachment.merge()
    assert gap(other.logits(), model.logits()) <= SAME


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_moved_start_of_peft_is_read_with_the_base_that_it_changed(tiny, tmp_path, init):
    """PEFT takes B0 A0 off the base's weight, and its file holds A and B alone."""
    model = tiny("llama", CAUSAL)
    fields = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]}
    config = peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=init, **fields)
    model.model = peft.get_peft_model(model.model, config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) / 10)
    model.model.save_pretrained(tmp_path)
    other = tiny("llama", CAUSAL)
    plain = other.logits()
    attach_saved(tmp_path, other)
    assert gap(other.logits(), model.logits()) <= 1e-5
    assert (plain - other.logits()).abs().max() > 1e-2


def test_a_later_peft_adds_fields_without_harm(tiny, tmp_path):
    """Every default of the installed PEFT counts as not used."""
    model = tiny("roberta")
    wrapped = peft.get_peft_model(
        model.model, peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"])
    )
    wrapped.save_pretrained(tmp_path)
    assert len(json.loads((tmp_path / CONFIG_FILE).read_text())) > 25
    other = tiny("roberta")
    assert attach_saved(tmp_path, other).sites
