"""PEFT's format, written and read; PEFT itself is in tests/parity."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lorakit.adapters import native, peft
from lorakit.adapters.attach import attach_adapter
from lorakit.adapters.files import CONFIG_FILE, PEFT_FILE, read_adapter
from lorakit.adapters.save import save_adapter
from lorakit.errors import AdapterError, InputError
from lorakit.methods.reparam import Target
from lorakit.methods.reparam.lora import LoRA
from tests.attaching import attach_saved
from tests.rounding import assert_near

PREFIX = "base_model.model."
QUERY = "roberta.encoder.layer.0.attention.self.query"
OLD_FIELDS = {
    "peft_type",
    "base_model_name_or_path",
    "revision",
    "task_type",
    "inference_mode",
    "r",
    "target_modules",
    "lora_alpha",
    "lora_dropout",
    "fan_in_fan_out",
    "bias",
    "modules_to_save",
}
"""What PEFT has read since its first releases."""


def _config(folder) -> dict:
    return json.loads((folder / CONFIG_FILE).read_text())


def test_the_config_of_a_classifier(trained):
    _, _, folder = trained("roberta", r=4, alpha=6.5, dropout=0.1)
    assert _config(folder) == {
        "peft_type": "LORA",
        "base_model_name_or_path": "some/base",
        "revision": "abc123",
        "task_type": "SEQ_CLS",
        "r": 4,
        "lora_alpha": 6.5,
        "lora_dropout": 0.1,
        "bias": "none",
        "inference_mode": True,
        "fan_in_fan_out": False,
        "target_modules": ["query", "value"],
        "modules_to_save": ["classifier"],
    }


@pytest.mark.parametrize(
    ("family", "head", "fields", "wanted"),
    [
        (
            "gpt2",
            "CausalLM",
            {},
            {"r": 16, "lora_alpha": 32, "target_modules": ["c_attn"], "fan_in_fan_out": True},
        ),
        (
            "gpt2",
            "CausalLM",
            {"targets": "k"},
            {"r": 8, "lora_alpha": 16, "target_modules": ["c_attn"]},
        ),
        (
            "gpt_neox",
            "CausalLM",
            {},
            {"r": 16, "target_modules": ["query_key_value"], "fan_in_fan_out": False},
        ),
        (
            "llama",
            "CausalLM",
            {},
            {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]},
        ),
        (
            "distilbert",
            "SequenceClassification",
            {},
            {"modules_to_save": ["classifier", "pre_classifier"]},
        ),
        (
            "t5",
            "SequenceClassification",
            {},
            {"modules_to_save": ["classification_head"], "target_modules": ["q", "v"]},
        ),
    ],
)
def test_the_config_of_other_shapes(trained, family, head, fields, wanted):
    _, _, folder = trained(family, head=head, **fields)
    found = _config(folder)
    assert {key: found[key] for key in wanted} == wanted
    assert set(found) <= OLD_FIELDS
    assert found["task_type"] == ("CAUSAL_LM" if head == "CausalLM" else "SEQ_CLS")
    assert ("modules_to_save" in found) == (head != "CausalLM")


def test_the_file_is_sorted_and_ends_in_a_newline(trained):
    _, _, folder = trained(targets=("value", "query", "mlp_out", "key"))
    text = (folder / CONFIG_FILE).read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
    assert _config(folder)["target_modules"] == sorted(_config(folder)["target_modules"])


def test_names_that_would_mean_more_are_written_in_full(trained):
    """`dense` alone would be attention.output.dense, intermediate.dense and output.dense."""
    _, _, folder = trained(targets="attention_out")
    wanted = [f"roberta.encoder.layer.{i}.attention.output.dense" for i in range(2)]
    assert _config(folder)["target_modules"] == wanted


class _Twins(nn.Module):
    """Two modules called `proj`; one is not a linear layer, and PEFT would take it too."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.ModuleDict({"proj": nn.Embedding(4, 4)})
        self.body = nn.ModuleDict({"proj": nn.Linear(4, 4)})


def test_a_short_name_is_not_one_that_another_kind_of_layer_has():
    attachment = LoRA(targets=("body.proj",)).attach(_Twins(), {})
    assert peft.config_of(attachment, "base", None, None)["target_modules"] == ["body.proj"]


def test_the_tensors_of_a_classifier(trained):
    model, attachment, folder = trained("roberta", r=4)
    tensors = load_file(folder / PEFT_FILE)
    deltas = {
        f"{PREFIX}{name}.lora_{letter}.weight" for name in attachment.deltas for letter in "AB"
    }
    assert set(tensors) == deltas | {f"{PREFIX}{name}" for name in model.newly_initialised}
    assert tensors[f"{PREFIX}{QUERY}.lora_A.weight"].shape == (4, 32)
    assert tensors[f"{PREFIX}{QUERY}.lora_B.weight"].shape == (32, 4)
    assert torch.equal(tensors[f"{PREFIX}{QUERY}.lora_B.weight"], attachment.deltas[QUERY].B)
    assert torch.equal(tensors[f"{PREFIX}classifier.dense.bias"], model.model.classifier.dense.bias)


def test_query_and_value_of_c_attn_are_stacked(trained):
    """A' = [A_q ; A_v], B' = [B_q 0 ; 0 0 ; 0 B_v], r' = 2 r, alpha' = 2 alpha."""
    _, attachment, folder = trained("gpt2", r=3, alpha=5)
    path = "transformer.h.1.attn.c_attn"
    q, v = attachment.deltas[f"{path}[query]"], attachment.deltas[f"{path}[value]"]
    tensors = load_file(folder / PEFT_FILE)
    a, b = tensors[f"{PREFIX}{path}.lora_A.weight"], tensors[f"{PREFIX}{path}.lora_B.weight"]
    zero = torch.zeros(32, 3)
    blocks = [torch.cat([q.B, zero], 1), torch.cat([zero, zero], 1), torch.cat([zero, v.B], 1)]
    assert torch.equal(a, torch.cat([q.A, v.A]).detach())
    assert torch.equal(b, torch.cat(blocks).detach())
    assert (_config(folder)["r"], _config(folder)["lora_alpha"]) == (6, 10)


def test_parts_with_scales_of_their_own_are_folded_into_b(trained, base):
    model, attachment, folder = trained(
        "gpt2", targets=(Target(match="q", r=2, alpha=6), Target(match="v", r=4, alpha=2))
    )
    path = "transformer.h.0.attn.c_attn"
    tensors, config = load_file(folder / PEFT_FILE), _config(folder)
    product = tensors[f"{PREFIX}{path}.lora_B.weight"] @ tensors[f"{PREFIX}{path}.lora_A.weight"]
    product *= config["lora_alpha"] / config["r"]
    query, value = (attachment.deltas[f"{path}[{name}]"].matrix() for name in ("query", "value"))
    assert_near(product, torch.cat([query, torch.zeros(32, 32), value]), 64)
    other = base("gpt2")
    attach_saved(folder, other)
    assert_near(other.logits(), model.logits())


def test_numbers_of_their_own_become_patterns(trained):
    _, _, folder = trained(
        targets=("query", "value", Target(match="layer.1.output.dense", r=2, alpha=3)), r=4, alpha=8
    )
    config = _config(folder)
    path = "roberta.encoder.layer.1.output.dense"
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    assert (config["rank_pattern"], config["alpha_pattern"]) == ({path: 2}, {path: 3})
    assert path in config["target_modules"]


def test_a_stacked_adapter_that_was_trained_on_elsewhere_is_refused(trained, base, rewrite):
    """Its zero blocks have filled: the parts can no longer be told apart."""
    _, _, folder = trained("gpt2")
    rewrite(
        folder, lambda t: {n: v + 0.1 if n.endswith("lora_B.weight") else v for n, v in t.items()}
    )
    with pytest.raises(AdapterError, match="rows of query, value"):
        attach_saved(folder, base("gpt2"))


# what PEFT wrote


def _tensors(
    r: int = 2, paths=(QUERY,), head: bool = True, out: int = 32
) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    tensors = {}
    for path in paths:
        tensors[f"{PREFIX}{path}.lora_A.weight"] = torch.randn(r, 32, generator=g)
        tensors[f"{PREFIX}{path}.lora_B.weight"] = torch.randn(out, r, generator=g)
    if head:
        for part, rows in (("dense", 32), ("out_proj", 2)):
            tensors[f"{PREFIX}classifier.{part}.weight"] = torch.randn(rows, 32, generator=g)
            tensors[f"{PREFIX}classifier.{part}.bias"] = torch.randn(rows, generator=g)
    return tensors


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 8 / 2),
        ({"lora_alpha": 3.0}, 3 / 2),
        ({"use_rslora": True}, 8 / 2**0.5),
        ({"alpha_pattern": {"query": 5}}, 5 / 2),
        ({"alpha_pattern": {r"layer\.\d+\..*": 6, "query": 5}}, 6 / 2),
        ({"alpha_pattern": {"key": 5}}, 8 / 2),
        ({"alpha_pattern": {"query": 5}, "use_rslora": True}, 5 / 2**0.5),
        ({"r": 16, "rank_pattern": {"query": 2}}, 8 / 2),
        (
            {"use_dora": False, "lora_bias": False, "layer_replication": None, "loftq_config": {}},
            8 / 2,
        ),
    ],
    ids=str,
)
def test_the_scale_of_an_adapter_from_peft(base, from_peft, tmp_path, config, scale):
    attachment = attach_saved(from_peft(tmp_path, _tensors(), **config), base())
    assert list(attachment.deltas) == [QUERY]
    assert attachment.deltas[QUERY].scale == pytest.approx(scale)
    assert torch.equal(attachment.deltas[QUERY].A, _tensors()[f"{PREFIX}{QUERY}.lora_A.weight"])


@pytest.mark.parametrize(
    "config",
    [
        {"lora_alpha": "x"},
        {"lora_alpha": None},
        {"lora_alpha": -4},
        {"lora_alpha": 0},
        {"lora_alpha": 1e300},
        {"lora_dropout": "x"},
        {"lora_dropout": 2},
        {"alpha_pattern": 5},
        {"alpha_pattern": [1]},
        {"alpha_pattern": {"(": 3}},
        {"alpha_pattern": {"query": "x"}},
        {"rank_pattern": {"query": 0}},
        {"r": "2"},
        {"r": -1},
        {"use_rslora": "yes"},
        {"base_model_name_or_path": 5},
        {"task_type": 5},
        {"revision": 5},
    ],
    ids=str,
)
def test_a_field_of_another_type_is_named(from_peft, tmp_path, config):
    with pytest.raises(AdapterError, match=rf"adapter_config\.json.*{next(iter(config))}"):
        read_adapter(from_peft(tmp_path, _tensors(), **config))


@pytest.mark.parametrize("alpha", [{}, {"alpha": None}, {"alpha": "8"}, {"alpha": [8]}], ids=str)
def test_a_field_that_loha_needs_is_absent_or_of_another_type(alpha):
    ends = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    tensors = {f"{PREFIX}query.{end}": torch.zeros(2, 2) for end in ends}
    with pytest.raises(AdapterError, match="alpha"):
        native.method_of({"peft_type": "LOHA", "r": 2, **alpha}, tensors)


@pytest.mark.parametrize("config", [{"r": 16}, {"rank_pattern": {"query": 4}}], ids=str)
def test_a_rank_that_is_not_the_tensors(base, from_peft, tmp_path, config):
    """PEFT could not load it, and its scale would be another."""
    with pytest.raises(AdapterError, match=r"attention\.self\.query.*(16|4).* 2"):
        attach_saved(from_peft(tmp_path, _tensors(), **config), base())


def test_lora_alpha_has_pefts_default(base, from_peft, tmp_path):
    folder = from_peft(tmp_path, _tensors())
    (folder / CONFIG_FILE).write_text('{"peft_type": "LORA"}')
    assert attach_saved(folder, base()).deltas[QUERY].scale == 8 / 2


@pytest.mark.parametrize(
    "config",
    [
        {"bias": "all"},
        {"layer_replication": [[0, 1]]},
        {"trainable_token_indices": [1]},
        {"target_parameters": ["x"]},
        {"use_qalora": True},
        {"alora_invocation_tokens": [1]},
        {"monteclora_config": {"num_samples": 2}},
        {"velora_config": {"num_groups": 2}},
        {"kasa_config": {"beta": 1.0}},
        {"init_lora_weights": "pissa_niter_4"},
        {"init_lora_weights": "corda"},
        {"a_field_of_the_future": True},
    ],
    ids=lambda c: "-".join(map(str, *c.items())),
)
def test_what_plain_lora_is_not_is_refused_by_name(base, from_peft, tmp_path, config):
    """CorDA and others change W0 by what the file does not hold: the sum would differ."""
    folder = from_peft(tmp_path, _tensors(), **config)
    with pytest.raises(AdapterError, match=next(iter(config))):
        attach_saved(folder, base())


@pytest.mark.parametrize("value", [True, False, "gaussian", "eva", "orthogonal"])
def test_how_a_and_b_began_does_not_matter(base, from_peft, tmp_path, value):
    assert attach_saved(from_peft(tmp_path, _tensors(), init_lora_weights=value), base()).sites


@pytest.mark.parametrize("value", ["IA3", None, "BOFT"])
def test_another_kind_of_adapter(base, from_peft, tmp_path, value):
    with pytest.raises(AdapterError, match=repr(value)):
        attach_saved(from_peft(tmp_path, _tensors(), peft_type=value), base())


@pytest.mark.parametrize(
    ("field", "value"), [("peft_type", ["LORA"]), ("modules_to_save", [1]), ("modules_to_save", 1)]
)
def test_a_field_of_another_type(base, from_peft, tmp_path, field, value):
    config = {"ensure_weight_tying": True, field: value}
    with pytest.raises(AdapterError, match=field):
        attach_saved(from_peft(tmp_path, _tensors(), **config), base())


@pytest.mark.parametrize("key", ["lora_B.bias", "lora_embedding_A", "lora_magnitude_vector"])
def test_a_tensor_that_nothing_takes(base, from_peft, tmp_path, key):
    tensors = _tensors() | {f"{PREFIX}{QUERY}.{key}": torch.zeros(32)}
    with pytest.raises(AdapterError, match=key):
        attach_saved(from_peft(tmp_path, tensors), base())


def test_half_of_a_pair_is_missing(base, from_peft, tmp_path):
    tensors = _tensors()
    del tensors[f"{PREFIX}{QUERY}.lora_B.weight"]
    with pytest.raises(AdapterError, match=QUERY):
        attach_saved(from_peft(tmp_path, tensors), base())


def test_a_module_that_the_model_has_not(base, from_peft, tmp_path):
    """An InputError, with the nearest names."""
    tensors = _tensors(paths=["roberta.encoder.layer.7.attention.self.query"])
    with pytest.raises(InputError, match=r"layer\.7.*attention\.self\.query"):
        attach_saved(from_peft(tmp_path, tensors), base())


def test_a_head_that_the_adapter_does_not_hold(base, from_peft, tmp_path):
    with pytest.raises(AdapterError, match=r"classifier\.dense\.bias"):
        attach_saved(from_peft(tmp_path, _tensors(head=False)), base())


def test_a_head_that_the_model_has_not(base, from_peft, tmp_path):
    with pytest.raises(AdapterError, match=r"score\.weight"):
        attach_saved(
            from_peft(tmp_path, _tensors() | {f"{PREFIX}score.weight": torch.zeros(2, 32)}), base()
        )


def test_a_head_of_another_size(base, from_peft, tmp_path):
    with pytest.raises(AdapterError, match=r"out_proj\.weight.*\(2, 32\).*\(3, 32\)"):
        attach_saved(from_peft(tmp_path, _tensors()), base(num_labels=3))


def test_factors_of_another_size(base, from_peft, tmp_path):
    with pytest.raises(AdapterError, match=r"lora_B \(31, 2\).*32"):
        attach_saved(from_peft(tmp_path, _tensors(out=31)), base())


def test_a_whole_c_attn_from_peft_is_one_site(base, from_peft, tmp_path):
    """Query, key and value share one A there; no roles are needed."""
    path = "transformer.h.0.attn.c_attn"
    folder = from_peft(tmp_path, _tensors(paths=[path], head=False, out=96), fan_in_fan_out=True)
    model = base("gpt2", "CausalLM")
    attachment = attach_saved(folder, model)
    assert [(site.name, site.shape) for site in attachment.sites] == [(path, (96, 32))]


def test_a_path_means_one_module_only(from_peft, tmp_path):
    """`head` is a module of its own and the end of `body.head`."""

    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.ModuleDict({"head": nn.Linear(32, 32)}), nn.Linear(32, 32)

    for paths in (["head"], ["head", "body.head"]):
        folder = from_peft(tmp_path, _tensors(paths=paths, head=False))
        attachment = attach_adapter(read_adapter(folder), Nested(), {}, ())
        assert sorted(site.path for site in attachment.sites) == sorted(paths)


def test_an_adapter_from_peft_can_be_saved_as_lorakits(base, from_peft, about, tmp_path):
    model, other = base(), base()
    attachment = attach_saved(from_peft(tmp_path / "theirs", _tensors()), model)
    save_adapter(tmp_path / "ours", attachment, about(model, attachment))
    attach_saved(tmp_path / "ours", other)
    assert torch.equal(other.logits(), model.logits())
