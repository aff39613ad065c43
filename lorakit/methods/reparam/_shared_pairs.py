"""Trained pairs A, B that several sites share."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import nn

from lorakit.nn.linear import weight_of
from lorakit.nn.select import Site


class SharedPairs(nn.Module):
    """A child `pairN` for each, with A (r, in) and B (out, r), which are zero at first."""

    def __init__(self, first: Site):
        """first: a site whose weight has the device and the dtype."""
        super().__init__()
        weight = weight_of(first.module)
        dtype = weight.dtype if weight.is_floating_point() else torch.float32
        self.dtype = torch.promote_types(dtype, torch.float32)
        self.device = weight.device
        self.names: dict[Hashable, str] = {}
        self.places: dict[str, tuple[str, ...]] = {}

    def add(self, site: Site, keys: Sequence[tuple[Hashable, int]]) -> None:
        """Give the site the pairs of these keys, each with its rank."""
        out, in_ = site.shape
        for key, r in keys:
            if key not in self.names:
                self.names[key] = f"pair{len(self.names)}"
                pair = nn.Module()
                for name, shape in (("A", (r, in_)), ("B", (out, r))):
                    zeros = torch.zeros(shape, dtype=self.dtype, device=self.device)
                    pair.register_parameter(name, nn.Parameter(zeros))
                self.add_module(self.names[key], pair)
        self.places[site.name] = tuple(self.names[key] for key, _ in keys)

    def of(self, site_name: str) -> list[nn.Module]:
        """The pairs of a site, in the order of its keys."""
        return [self.get_submodule(name) for name in self.places[site_name]]
