"""Logits of the positions that are needed: the output layer costs a fifth of a small model, and much memory."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def last_logits(model: nn.Module, inputs: dict[str, Any], count: int) -> Tensor:
    """(batch, count, vocabulary), of the last `count` positions. Others are not computed where the model can leave them
    out, and no keys and values are kept."""
    plain: Any = getattr(model, "module", model)
    known = inspect.signature(type(plain).forward).parameters
    wanted = {
        name: value
        for name, value in (("logits_to_keep", count), ("use_cache", False))
        if name in known
    }
    with contiguous_head(plain):
        return model(**inputs, **wanted).logits[:, -count:]


@contextmanager
def contiguous_head(model: Any) -> Iterator[None]:
    """Inside, the output layer gets its input in one piece: a slice of the hidden states is none, and torch's matmul
    would copy a frozen output layer once per row of the batch (in bf16 that doubles a step of GPT-2 medium)."""
    output = getattr(model, "get_output_embeddings", lambda: None)()
    if output is None:
        yield
        return
    hook = output.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    try:
        yield
    finally:
        hook.remove()
