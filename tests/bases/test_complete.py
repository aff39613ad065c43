"""A base's body comes from its checkpoint, all of it, and is finite; only a head may be new."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lorakit.bases.files import location
from lorakit.bases.heads import held_head
from lorakit.bases.load import load
from lorakit.bases.outline import outline
from lorakit.bases.tokenizer import load_tokenizer
from lorakit.errors import ModelError
from lorakit.models import Model
from tests.conftest import make_config
from tests.tiers import unit_or_slow

LABELS = ("no", "yes", "maybe")
ENCODER, DECODER = ("lorakit:tiny_encoder", "classification"), ("lorakit:tiny_gpt2", "causal")


@pytest.fixture
def base(tmp_path):
    """`base(asset)`: a copy to change."""
    return lambda asset="lorakit:tiny_encoder": Path(
        shutil.copytree(location(asset), tmp_path / "base")
    )


def configure(folder: Path, **values: object) -> None:
    """None takes a key away."""
    file = folder / "config.json"
    content = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def rewrite(folder: Path, change) -> None:
    file = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    save_file(change(tensors), file, metadata={"format": "pt"})


def refused(folder: Path, head: str, *said: str, **fields: object) -> None:
    """By `load`, and by `outline` from the headers alone."""
    for read in (outline, load):
        with pytest.raises(ModelError) as error:
            read(Model(name=str(folder), **fields), head, LABELS)
        assert error.value.exit_code == 2
        for word in said:
            assert word in str(error.value), (read.__name__, str(error.value))


@pytest.mark.parametrize(
    ("key", "value", "tensor", "shapes"),
    [
        ("vocab_size", None, "embeddings.word_embeddings.weight", ("(1061, 128)", "(50265, 128)")),
        ("vocab_size", 900, "embeddings.word_embeddings.weight", ("(1061, 128)", "(900, 128)")),
        (
            "type_vocab_size",
            None,
            "embeddings.token_type_embeddings.weight",
            ("(1, 128)", "(2, 128)"),
        ),
        (
            "max_position_embeddings",
            None,
            "embeddings.position_embeddings.weight",
            ("(130, 128)", "(512, 128)"),
        ),
        ("intermediate_size", 100, "intermediate.dense.bias", ("(384,)", "(100,)")),
    ],
)
def test_a_size_that_is_wrong_is_named(base, key, value, tensor, shapes):
    folder = base()
    configure(folder, **{key: value})
    set_or_not = f"config.json sets {key}" if value else f"config.json does not set {key}"
    refused(folder, "classification", tensor, *shapes, set_or_not)


def test_a_size_of_a_decoder(base):
    folder = base("lorakit:tiny_gpt2")
    configure(folder, n_positions=None)
    refused(folder, "causal", "transformer.wpe.weight", "(128, 128)", "(1024, 128)", "n_positions")


def test_a_size_that_the_recipe_sets(base):
    refused(
        base(),
        "classification",
        "(900, 128)",
        "model.config sets vocab_size",
        config={"vocab_size": 900},
    )


@pytest.mark.parametrize(
    ("asset", "head", "name"),
    [
        (*ENCODER, "roberta.encoder.layer.1.attention.self.query.weight"),
        (*ENCODER, "roberta.embeddings.LayerNorm.bias"),
        (*DECODER, "transformer.h.2.mlp.c_fc.bias"),
        (*DECODER, "transformer.ln_f.weight"),
        ("lorakit:tiny_gpt2", "classification", "transformer.wpe.weight"),
    ],
)
def test_one_tensor_that_is_absent(base, asset, head, name):
    folder = base(asset)
    rewrite(folder, lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name})
    refused(folder, head, name)


def test_more_layers_than_there_are(base):
    folder = base()
    configure(folder, num_hidden_layers=4)
    refused(folder, "classification", "roberta.encoder.layer.3.")


def test_fewer_layers_than_there_are(base, caplog):
    folder = base()
    configure(folder, num_hidden_layers=2)
    refused(folder, "classification", "16 tensors", "roberta.encoder.layer.2.", "model.config")
    with pytest.raises(
        ModelError, match="no place"
    ):  # another setting is not a wish for fewer layers
        load(Model(name=str(folder), config={"layer_norm_eps": 1e-5}), "classification", LABELS)
    short = load(Model(name=str(folder), config={"num_hidden_layers": 2}), "classification", LABELS)
    assert short.config.num_hidden_layers == 2
    assert "roberta.encoder.layer.2." in caplog.text


def test_a_bias_that_would_be_dropped(base, tmp_path, tiny, tokenizer):
    """Qwen's attention has biases, Llama's has none; all other names and shapes are the same."""
    folder = tmp_path / "qwen"
    tiny("qwen2", "CausalLM").model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    configure(folder, model_type="llama", architectures=["LlamaForCausalLM"])
    refused(folder, "causal", "self_attn.k_proj.bias")


def test_an_output_layer_that_is_not_there(tmp_path, tiny, tokenizer):
    folder = tmp_path / "llama"
    tiny("llama", "CausalLM", tie_word_embeddings=False).model.model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    refused(folder, "causal", "lm_head.weight", "tie_word_embeddings")
    assert load(Model(name=str(folder)), "classification", LABELS).newly_initialised == {
        "score.weight"
    }


def test_an_output_layer_is_untied_as_what_it_was_tied_to(base):
    folder = base("lorakit:tiny_gpt2")
    found = load(Model(name=str(folder), config={"tie_word_embeddings": False}), "causal")
    assert found.newly_initialised == frozenset()
    weights = dict(found.model.named_parameters())
    assert torch.equal(weights["lm_head.weight"], weights["transformer.wte.weight"])
    assert (
        outline(
            Model(name=str(folder), config={"tie_word_embeddings": False}), "causal"
        ).newly_initialised
        == frozenset()
    )


@pytest.mark.parametrize(
    "model_type",
    unit_or_slow(
        ["bert", "roberta", "deberta-v2", "electra", "albert", "distilbert"],
        ["bert", "roberta", "distilbert"],
    ),
)
@pytest.mark.parametrize("saved", ["ForMaskedLM", "Model", "ForTokenClassification"])
def test_what_was_trained_for_something_else_is_a_base(tmp_path, tokenizer, model_type, saved):
    """Another head, with or without a pooler; and `check` counts what training finds."""
    config = make_config(model_type, embedding_size=32)
    auto = getattr(transformers, f"AutoModel{saved.removeprefix('Model')}")
    auto.from_config(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    spec = Model(name=str(tmp_path))
    whole, sketch = load(spec, "classification", LABELS), outline(spec, "classification", LABELS)
    assert whole.newly_initialised == sketch.newly_initialised
    body = {
        name
        for name in whole.newly_initialised
        if name.startswith(f"{whole.model.base_model_prefix}.")
    }
    assert all(".pooler." in name for name in body)
    assert bool(body) == (model_type in ("bert", "albert") and saved != "Model")


@pytest.mark.parametrize(
    "leftover", ["roberta.embeddings.position_ids", "roberta.pooler.dense.weight", "lm_head.more"]
)
def test_what_old_checkpoints_hold_besides(base, leftover):
    folder = base()
    rewrite(folder, lambda tensors: {**tensors, leftover: torch.zeros(1, 130)})
    assert load(Model(name=str(folder)), "classification", LABELS)
    assert outline(Model(name=str(folder)), "classification", LABELS)


def test_a_mask_that_old_checkpoints_hold(base):
    folder = base("lorakit:tiny_gpt2")
    rewrite(
        folder, lambda tensors: {**tensors, "transformer.h.0.attn.bias": torch.zeros(1, 1, 8, 8)}
    )
    assert load(Model(name=str(folder)), "causal").newly_initialised == frozenset()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("asset", "head", "name"),
    [
        (*ENCODER, "roberta.encoder.layer.1.attention.self.query.weight"),
        (*DECODER, "transformer.h.0.ln_1.bias"),
    ],
)
def test_numbers_that_are_not_finite(base, asset, head, name, number):
    folder = base(asset)

    def spoil(tensors):
        tensors[name].view(-1)[3] = number
        return tensors

    rewrite(folder, spoil)
    with pytest.raises(ModelError, match=name) as error:
        load(Model(name=str(folder)), head, LABELS)
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("dtype", "said"),
    [
        (torch.int32, "I32"),
        (torch.int8, "I8"),
        (torch.complex64, "C64"),
        (torch.float8_e4m3fn, "F8_E4M3"),
        (torch.bool, "BOOL"),
    ],
)
@pytest.mark.parametrize(
    ("asset", "head", "name"),
    [
        (*DECODER, "transformer.ln_f.weight"),
        (*ENCODER, "roberta.encoder.layer.0.attention.self.query.bias"),
    ],
)
def test_numbers_that_transformers_would_cast(base, asset, head, name, dtype, said):
    """Integers of a hundred times the weights would be loaded as weights."""
    folder = base(asset)
    name = next(key for key in load_file(folder / "model.safetensors") if name.endswith(key))
    rewrite(folder, lambda tensors: tensors | {name: (tensors[name] * 100).to(dtype)})
    refused(folder, head, name, said)


def test_numbers_that_a_half_does_not_hold(base):
    folder = base()
    rewrite(folder, lambda tensors: {key: tensor.float() * 1e5 for key, tensor in tensors.items()})
    assert load(Model(name=str(folder)), "classification", LABELS)
    with pytest.raises(ModelError, match="in fp16"):
        load(Model(name=str(folder), dtype="fp16"), "classification", LABELS)


def test_files_that_are_cut_short(base):
    folder = base()
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    refused(folder, "classification", str(folder))


@pytest.mark.parametrize(
    "index",
    [
        '{"weight_map": {}}',
        '{"weight_map": {"a": "../b.safetensors"}}',
        "[]",
        "{",
        '{"weight_map": {"a": "absent.safetensors"}}',
    ],
)
def test_an_index_that_is_damaged(base, index):
    folder = base()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    refused(folder, "classification")


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "4 bits"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "8 bits"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "fp8"}, "fp8"),
    ],
)
def test_a_base_that_is_stored_quantized(base, stored, said):
    folder = base("lorakit:tiny_gpt2")
    configure(folder, quantization_config=stored)
    refused(folder, "causal", said, "model.quantize")


def test_an_adapter_beside_the_weights(base):
    """transformers would read the base that it names, and put it on."""
    folder = base("lorakit:tiny_gpt2")
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "someone/else"})
    )
    refused(folder, "causal", "adapter_config.json")


def test_weights_by_another_name(base):
    folder = base("lorakit:tiny_gpt2")
    configure(folder, transformers_weights="other.safetensors")
    refused(folder, "causal", "transformers_weights")


@pytest.mark.parametrize("value", ["nope", [1], True, {"a": 1}])
def test_a_length_that_is_no_number(base, value):
    folder = base("lorakit:tiny_gpt2")
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": value}))
    with pytest.raises(ModelError, match="model_max_length"):
        load_tokenizer(Model(name=str(folder)))


@pytest.mark.parametrize("value", ["gelu_new", {}, True])
def test_a_part_that_is_no_configuration(base, value):
    folder = base()
    configure(folder, text_config=value)
    assert load(Model(name=str(folder)), "classification", LABELS)


@pytest.mark.parametrize("kind", ["gemma3", "llama4", "qwen3_5"])
def test_a_configuration_in_parts(kind, tmp_path, tokenizer):
    """It has no pad_token_id of its own."""
    text = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 8,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "pad_token_id": None,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "max_position_embeddings": 40,
        "intermediate_size_mlp": 48,
        "num_local_experts": 2,
    }
    if kind == "qwen3_5":
        text["layer_types"] = ["linear_attention", "full_attention"]
    vision = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 28,
        "patch_size": 14,
    }
    config = transformers.AutoConfig.for_model(kind, text_config=text, vision_config=vision)
    assert not hasattr(config, "pad_token_id")
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    found = load(Model(name=str(tmp_path)), "causal")
    assert found.config.get_text_config().pad_token_id == 0
    assert outline(Model(name=str(tmp_path)), "causal").newly_initialised == frozenset()


class _Custom(torch.nn.Module):
    """A model as code of a checkpoint may write it."""

    def __init__(self, prefix: str, **parts: torch.nn.Module):
        super().__init__()
        self.base_model_prefix = prefix
        for name, part in parts.items():
            self.add_module(name, part)

    def get_input_embeddings(self) -> torch.nn.Module | None:
        return getattr(self, "embed", None)


BLOCKS = torch.nn.ModuleList([torch.nn.Linear(2, 2, bias=False)])
HEAD = torch.nn.Linear(2, 2, bias=False)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (_Custom("body", body=BLOCKS, score=HEAD), {"score.weight"}),
        (_Custom("", embed=torch.nn.Embedding(3, 2), blocks=BLOCKS, score=HEAD), {"score.weight"}),
        (_Custom("absent", blocks=torch.nn.Sequential(BLOCKS), score=HEAD), {"score.weight"}),
        (_Custom("", first=torch.nn.Linear(2, 2), score=HEAD), set()),
    ],
    ids=["prefix", "embeddings and blocks", "blocks", "unknown"],
)
def test_the_head_is_what_is_outside_of_the_body(model, expected):
    assert held_head(model, "classification") == expected
    assert held_head(model, "causal") == frozenset()
