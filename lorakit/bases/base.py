"""The base model: what loading a checkpoint gives, before a method is attached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lorakit.nn.select import Roles
from lorakit.tokenizer import Tokenizer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""A recipe's name for a dtype -> the dtype."""


@dataclass(frozen=True)
class Base:
    """A model, its tokenizer and roles, and which parameters the checkpoint does not hold."""

    model: nn.Module
    tokenizer: Tokenizer
    """None for an outline, which has shapes only."""
    config: Any
    roles: Roles
    newly_initialised: frozenset[str]
    """Parameters that the checkpoint does not hold. They start at random values, so they must be
    trained and saved."""
    name: str
    revision: str | None
    """The commit that the revision resolved to on the hub; None for a local folder."""
    quantized: str | None = None
    """`int8` or `nf4` if the linear layers are stored that way, else None."""
    head: frozenset[str] = frozenset()
    """Parameters of a head that the checkpoint holds. A new task trains and saves them too."""

    def to(self, device: torch.device) -> None:
        """Move the model. A quantized model stays on the device it was loaded to."""
        if self.quantized is None:
            self.model.to(device)
