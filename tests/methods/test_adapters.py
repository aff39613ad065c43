"""The four adapters against blocks written by hand, as LoRA's reference code has them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lorakit.errors import ModelError, TargetError
from lorakit.fast import make_fast
from lorakit.methods import methods
from tests.attaching import attach


@torch.no_grad()
def _attached(model, name: str, **fields):
    """With numbers everywhere, so that nothing is zero."""
    torch.manual_seed(0)
    attachment = attach(methods.get(name)(**fields), model)
    generator = torch.Generator().manual_seed(5)
    for insert in attachment.inserts.values():
        for parameter in insert.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return attachment


def _a(insert, x: Tensor, f) -> Tensor:
    return f(x @ insert.down.T + insert.down_bias) @ insert.up.T + insert.up_bias


def _norm(layer, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], layer.weight, layer.bias, layer.eps)


def _linear(layer, x: Tensor) -> Tensor:
    return x @ layer.weight.T + layer.bias


def _swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


H = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(2))


def _bert_block(layer, at_attention, at_mlp, after_mlp) -> Tensor:
    """modeling_bert.py without dropout.

    What the adapters do: at_attention(y), at_mlp(y); after_mlp(y, x).
    """
    attended = layer.attention.self(H)[0]
    x = _norm(
        layer.attention.output.LayerNorm,
        at_attention(_linear(layer.attention.output.dense, attended)) + H,
    )
    y = at_mlp(_linear(layer.output.dense, F.gelu(_linear(layer.intermediate.dense, x))))
    return _norm(layer.output.LayerNorm, after_mlp(y, x) + x)


def _same(y: Tensor) -> Tensor:
    return y


@pytest.fixture
def bert(tiny):
    model = tiny("bert")
    return model, model.model.bert.encoder.layer[1]


@torch.no_grad()
def test_houlsby(bert):
    """adapter(x) + x after the attention's dense layer and after the MLP's, then LayerNorm(x +
    input); swish."""
    model, layer = bert
    attachment = _attached(model, "adapter_h", r=3)
    a, m = (
        attachment.inserts[f"bert.encoder.layer.1.{p}.dense"]
        for p in ("attention.output", "output")
    )
    wanted = _bert_block(
        layer, lambda y: y + _a(a, y, _swish), lambda y: y + _a(m, y, _swish), lambda y, x: y
    )
    torch.testing.assert_close(layer(H), wanted, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_pfeiffer(bert):
    """residual = y; adapter(LayerNorm(y + input)) + residual, then the same LayerNorm(... + input);
    relu."""
    model, layer = bert
    part = _attached(model, "adapter_p", r=3).inserts["bert.encoder.layer.1.output.LayerNorm"]

    def after_mlp(y: Tensor, x: Tensor) -> Tensor:
        return y + _a(part, _norm(layer.output.LayerNorm, y + x), torch.relu)

    wanted = _bert_block(layer, _same, _same, after_mlp)
    torch.testing.assert_close(layer(H), wanted, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_lin_in_gpt2(tiny):
    model = tiny("gpt2")
    block = model.model.transformer.h[0]
    part = _attached(model, "adapter_l", r=3).inserts["transformer.h.0.mlp.c_proj"]
    x = block.attn(block.ln_1(H))[0] + H
    y = F.gelu(block.ln_2(x) @ block.mlp.c_fc.weight + block.mlp.c_fc.bias, approximate="tanh")
    y = y @ block.mlp.c_proj.weight + block.mlp.c_proj.bias
    normed = F.layer_norm(y, (32,)) * part.norm_weight + part.norm_bias
    torch.testing.assert_close(block(H), x + y + _a(part, normed, torch.relu), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_pfeiffer_in_a_block_that_ends_in_no_norm(tiny):
    model = tiny("gpt2")
    block = model.model.transformer.h[0]
    before = block(H)
    part = _attached(model, "adapter_p", r=3).inserts["transformer.h.0"]
    torch.testing.assert_close(
        block(H), before + _a(part, before, torch.relu), rtol=1e-5, atol=1e-5
    )


def test_adapterdrop_leaves_the_first_blocks_alone(tiny):
    """And nothing there is computed backwards."""
    model = tiny("roberta")
    attachment = attach(methods.get("adapter_d")(drop=1), model)
    assert [site.path for site in attachment.sites] == ["roberta.encoder.layer.1.output.LayerNorm"]
    seen = {}
    for i, layer in enumerate(model.model.roberta.encoder.layer):
        layer.register_forward_hook(
            lambda _, __, y, i=i: seen.update({i: (y[0] if isinstance(y, tuple) else y)})
        )
    model.loss()
    assert [seen[i].requires_grad for i in (0, 1)] == [False, True]
    with pytest.raises(ModelError, match=r"adapter_d: drop=2 .* 2$"):
        methods.get("adapter_d")(drop=2).attach(tiny("roberta").model, model.roles)


@pytest.mark.parametrize("name", ["adapter_h", "adapter_l", "adapter_p"])
def test_where_the_head_reads_the_first_token_alone(tiny, name):
    """The last layer at [CLS] only gives the same logits and gradients."""
    from lorakit.models import family_of

    found = []
    for fast in (False, True):
        model = tiny("bert", attention="sdpa")
        if fast:
            make_fast(model.model, family_of("bert").reads_first)
            assert model.model.bert.encoder.layer[-1].attention.output._forward_pre_hooks
        attachment = _attached(model, name)
        logits = model.logits()
        model.loss().backward()
        found.append({"logits": logits, **{n: p.grad for n, p in attachment.trained().items()}})
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["adapter_h", "adapter_l", "adapter_p", "adapter_d", "top_layers"])
def test_an_architecture_without_a_family_is_refused(tiny, name):
    with pytest.raises(TargetError, match=r"mlp_out|attention_out"):
        methods.get(name)().attach(tiny("bert").model, {})


def test_a_second_adapter_on_the_same_layers_is_refused(tiny):
    model = tiny("bert")
    _attached(model, "adapter_h")
    with pytest.raises(ModelError, match="already"):
        _attached(model, "adapter_l")


def test_top_layers_are_the_last(tiny):
    model = tiny("gpt2", num_hidden_layers=3)
    trained = attach(methods.get("top_layers")(n=2), model).trained()
    assert {name[:15] for name in set(trained) - model.newly_initialised} == {
        "transformer.h.1",
        "transformer.h.2",
    }
    with pytest.raises(ModelError, match="last 4 blocks are to train, and the model has 3"):
        attach(methods.get("top_layers")(n=4), model)
    half = tiny("gpt2", dtype=torch.bfloat16)
    with pytest.raises(ModelError, match="half precision"):
        attach(methods.get("top_layers")(), half)
