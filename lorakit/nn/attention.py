"""Attention that trains faster on a CPU: plain matrix products where torch's fused kernel is slow backwards.

Torch's CPU kernel of scaled dot product attention recomputes in its backward pass, in bf16 three times slower than two
batched products with a softmax between them up to some 400 tokens, and with dropout it has no fused form at all. So
while something trains, on a CPU, this is

    softmax(s Q K^T + M) -> dropout -> V,    (batch, heads, length, size), s: the model's scaling, M: its mask,

in bf16 up to `SHORT` tokens, and with dropout at every length; in all other cases it is transformers' own `sdpa`.
The softmax takes the mask with it, in place, and keeps its result alone; below `NARROW` keys in bf16 it computes in
float32, where torch's is twice as fast. It is registered with transformers as an attention implementation, which a
model is asked to use.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lorakit.nn.dropout import dropout as drop

NAME = "lorakit"
FIRST_ONLY = "asks_first_token_only"
"""Attribute of an attention module whose result is read at the first position alone (see `nn.first_token`)."""
SHORT = 384
"""Keys up to which products beat the fused kernel in bf16 (measured with AMX at heads of 64)."""
NARROW = 64
"""Keys below which torch's softmax in bf16 takes twice its time in float32."""


def use_fast_attention(model: nn.Module) -> bool:
    """Let a model of transformers that attends through `sdpa` do it this way; False where it attends otherwise."""
    config: Any = getattr(model, "config", None)
    if getattr(config, "_attn_implementation", None) not in ("sdpa", NAME):
        return False
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)  # type: ignore[operator]
    return True


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query: (batch, heads, length, size) -> (batch, length, heads, size), as transformers' interface has it.

    attention_mask: boolean (True: is seen) or to be added, broadcast to (batch, heads, length, keys); None: all is
    seen, or what came before, as `module.is_causal` says.
    """
    if getattr(module, FIRST_ONLY, False):
        length, query = query.shape[2], query[:, :, :1]
        if attention_mask is not None and attention_mask.shape[2] > 1:
            attention_mask = attention_mask[:, :, :1]
        result = _attend(module, query, key, value, attention_mask, dropout, scaling, kwargs)
        return result.expand(
            -1, length, -1, -1
        ), None  # the model wants its length; what follows takes the first
    return _attend(module, query, key, value, attention_mask, dropout, scaling, kwargs), None


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float,
    scaling: float | None,
    kwargs: dict[str, Any],
) -> Tensor:
    if not _faster(query, key, dropout, kwargs):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )[0]
    groups = (
        query.shape[1] // key.shape[1]
    )  # several heads share keys and values in the Llama shape
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if attention_mask is None and causal and query.shape[2] > 1:
        attention_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()
    by = attention_reference if torch.compiler.is_compiling() else attention_by_products
    return by(query, key, value, attention_mask, scaling, dropout).transpose(1, 2).contiguous()


def attention_by_products(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    p: float = 0.0,
) -> Tensor:
    """As `attention_reference`, to rounding; the gradient too, but of a row that sees nothing."""
    query = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = query @ key.transpose(-1, -2)
    if mask is not None and mask.dtype != torch.bool:
        scores, mask = scores + mask, None
    shares = _MaskedSoftmax.apply(scores, None if mask is None else ~mask)
    return drop(shares, p, p > 0) @ value  # type: ignore[arg-type]


class _MaskedSoftmax(torch.autograd.Function):
    """Of scores (..., keys) that nothing else reads: they are overwritten. unseen: boolean, broadcast to them.

    What is unseen has a share of 0, and so a gradient of 0: the mask is not needed for it.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, unseen: Tensor | None) -> Tensor:
        dtype = scores.dtype
        if dtype == torch.bfloat16 and scores.shape[-1] < NARROW:
            scores = scores.float()
        if unseen is not None:
            scores.masked_fill_(unseen, torch.finfo(dtype).min)
        shares = scores.softmax(-1).to(dtype)
        ctx.save_for_backward(shares)
        return shares

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (shares,) = ctx.saved_tensors
        return torch.ops.aten._softmax_backward_data(grad, shares, -1, shares.dtype), None


def attention_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    p: float = 0.0,
) -> Tensor:
    """The formula of the module: (batch, heads, length, size). A row that sees nothing sees all alike."""
    query = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = query @ key.transpose(-1, -2)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    return drop(scores.softmax(-1), p, p > 0) @ value


def _faster(query: Tensor, key: Tensor, dropout: float, kwargs: dict[str, Any]) -> bool:
    plain = not any(kwargs.get(name) is not None for name in ("softcap", "position_bias", "cache"))
    trains = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)
    short = query.dtype == torch.bfloat16 and key.shape[2] <= SHORT
    return plain and trains and query.device.type == "cpu" and (dropout > 0 or short)
