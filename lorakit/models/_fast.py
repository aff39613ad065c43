"""The same model, computed faster; each change steps aside by itself where it is not for this model or machine."""

from __future__ import annotations

from typing import Any

from torch import nn

from lorakit.models._base import Family
from lorakit.nn.activation import use_fast_activations
from lorakit.nn.attention import use_fast_attention
from lorakit.nn.dropout import use_fast_dropout
from lorakit.nn.first_token import read_first_token_only
from lorakit.nn.products import use_fast_products


def make_fast(model: nn.Module, family: Family | None, head: str) -> None:
    """Products, activation, dropout and attention that are faster, and the last layer at the first token where the head
    reads only that."""
    use_fast_products(model)
    use_fast_activations(model)
    use_fast_dropout(model)
    if (
        not use_fast_attention(model)
        or family is None
        or family.reads_first is None
        or head == "causal"
    ):
        return
    places: list[Any] = [_last(model, path) for path in family.reads_first]
    if all(places):
        read_first_token_only(model, *places)


def _last(model: nn.Module, path: str) -> nn.Module | None:
    found = [module for name, module in model.named_modules() if name.endswith(f".{path}")]
    return found[-1] if found else None
