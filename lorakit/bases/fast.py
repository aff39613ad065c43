"""Faster computations of the same model; each applies only to models and machines that it fits."""

from __future__ import annotations

from torch import nn

from lorakit.models import Family
from lorakit.nn.activation import use_fast_activations
from lorakit.nn.attention import use_fast_attention
from lorakit.nn.dropout import use_fast_dropout
from lorakit.nn.first_token import read_first_token_only
from lorakit.nn.products import use_fast_products


def make_fast(model: nn.Module, family: Family | None, head: str) -> None:
    """Replace products, activations, dropout and attention of `model` by faster ones, in place.

    If the head reads the first token only, the last layer computes only that token.
    """
    use_fast_products(model)
    use_fast_activations(model)
    use_fast_dropout(model)
    attention_replaced = use_fast_attention(model)
    if not attention_replaced or head == "causal" or family is None or family.reads_first is None:
        return
    attention, output = (_last_module(model, path) for path in family.reads_first)
    if attention is not None and output is not None:
        read_first_token_only(model, attention, output)


def _last_module(model: nn.Module, path: str) -> nn.Module | None:
    found = [module for name, module in model.named_modules() if name.endswith(f".{path}")]
    return found[-1] if found else None
