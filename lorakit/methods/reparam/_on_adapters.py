"""Methods that begin from other adapters of the same base: EigenLoRAx and aTLAS.

What they take from those adapters is frozen and saved, so that an adapter is read without them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lorakit.errors import ModelError
from lorakit.methods.reparam._lowrank import LowRank

if TYPE_CHECKING:
    from torch import Tensor

    from lorakit.methods.reparam._delta import MethodDelta
    from lorakit.nn.select import Site


@dataclass(frozen=True)
class SourceAdapter:
    """The change that an adapter makes, by the names of its sites."""

    folder: str
    factors: Mapping[str, tuple[Tensor, Tensor]]
    """Site -> (B (out, k) with its scale, A (k, in))."""

    def of(self, site: Site) -> tuple[Tensor, Tensor]:
        """ModelError: the adapter does not change the site, or as a weight of another shape."""
        if site.name not in self.factors:
            raise ModelError(
                f"method.adapters: {self.folder} does not change {site.name}; choose targets "
                "that every adapter has, or leave this adapter out"
            )
        b, a = self.factors[site.name]
        shape = b.shape[0], a.shape[1]
        if shape != tuple(site.shape):
            ours = " x ".join(map(str, site.shape))
            theirs = " x ".join(map(str, shape))
            raise ModelError(
                f"method.adapters: {site.name} is {theirs} in {self.folder} and {ours} here; its "
                "base is another one"
            )
        return b, a


class OnAdapters(LowRank, ABC):
    """dW in terms of what other adapters have learnt."""

    adapters: tuple[str, ...] = Field(default=(), strict=False)
    """Runs or adapter folders of the same base. They are read once, when a training begins."""

    @abstractmethod
    def begin_from(self, d: Any, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Take what is needed of each adapter's (B with its scale, A). Without gradients."""


def begin_from(deltas: Mapping[str, MethodDelta], sources: Sequence[SourceAdapter]) -> None:
    """Give the deltas of an `OnAdapters` what the sources hold.

    ModelError, and nothing is changed: a source lacks a site, or has another shape there.
    """
    import torch

    found = {name: [source.of(d.site) for source in sources] for name, d in deltas.items()}
    with torch.no_grad():
        for name, delta in deltas.items():
            assert isinstance(delta.method, OnAdapters)
            delta.method.begin_from(delta, found[name])
