"""Subsets: a method trains some of the model's own parameters, and there is nothing to merge."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from lorakit.errors import ModelError
from lorakit.methods._base import Attachment, Method
from lorakit.methods._state import read_parameters, write_parameters
from lorakit.nn.freeze import train_only
from lorakit.nn.rotation import rotation

if TYPE_CHECKING:
    from torch import Tensor, nn


class SubsetAttachment(Attachment):
    """The parameters `names` and the newly initialised head train.

    A copy of their first values is kept on the CPU, for `off` and `delta_norms`.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        names: Collection[str],
        newly_initialised: Collection[str],
    ):
        self.model = model
        self.method = method
        self.sites = []
        self.newly_initialised = frozenset(newly_initialised)
        self.names = frozenset(names) - self.newly_initialised
        stored = [n for n, p in self._chosen().items() if not p.is_floating_point()]
        if stored:
            raise ModelError(
                f"{method.name} trains {stored[0]}, which is quantized; leave model.quantize out, "
                "or take another method (lora)"
            )
        train_only(model, self.names | self.newly_initialised)
        meta = any(p.is_meta for p in model.parameters())
        self.before = {} if meta else read_parameters(self._chosen())

    def _chosen(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if name in self.names}

    def state(self) -> dict[str, Tensor]:
        return read_parameters(self.trained())

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        write_parameters(self.trained(), state)

    def merge(self) -> None:
        """The weights are the merged ones already."""

    def detach(self) -> None:
        """As every method's: the first values are put back."""
        write_parameters(self._chosen(), self.before)

    @contextmanager
    def off(self) -> Iterator[None]:
        now = {name: p.detach().clone() for name, p in self._chosen().items()}
        write_parameters(self._chosen(), self.before)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, p in self._chosen().items():
                    p.copy_(now[name])

    def rotations(self) -> dict[str, float]:
        found = {}
        for name, p in self._chosen().items():
            # of vectors, the direction means little
            if p.ndim > 1:
                first = self.before[name].cpu()
                found[name] = rotation(first, p.detach().cpu() - first)
        return found

    def delta_norms(self) -> dict[str, float]:
        norms = {}
        for name, p in self._chosen().items():
            base = self.before[name].cpu()
            norms[name] = (p.detach().cpu() - base).norm().item() / (base.norm().item() or 1.0)
        return norms
