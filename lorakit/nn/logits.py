"""Logits of the positions that are needed: the output layer costs a fifth of a small model, and much memory."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn


def last_logits(model: nn.Module, inputs: dict[str, Any], count: int) -> Tensor:
    """(batch, count, vocabulary), of the last `count` positions. Others are not computed where the model can leave them
    out, and no keys and values are kept."""
    known = inspect.signature(type(getattr(model, "module", model)).forward).parameters
    wanted = {name: value for name, value in (("logits_to_keep", count), ("use_cache", False)) if name in known}
    return model(**inputs, **wanted).logits[:, -count:]
