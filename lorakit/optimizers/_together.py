"""Several optimizers, each with its own groups, as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class Together(torch.optim.Optimizer):
    """Its groups are those of its parts, in their order, and so is its state."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]):
        self.parts = list(parts)
        self.sizes = [len(part.param_groups) for part in parts]
        super().__init__([group for part in parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        begin = 0
        for part, size in zip(self.parts, self.sizes, strict=True):
            # loading a state replaces groups and state, so a part is given them in every step
            part.param_groups = self.param_groups[begin : begin + size]
            part.state = self.state
            part.step()
            begin += size
