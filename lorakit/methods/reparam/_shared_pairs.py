"""Tensors that several sites share: trained pairs A, B, and tensors of one name for all."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import nn

from lorakit.nn.linear import like_layer
from lorakit.nn.select import Site


def largest(sites: Sequence[Site]) -> tuple[int, int]:
    """The largest out and the largest in of all sites."""
    return max(site.shape[0] for site in sites), max(site.shape[1] for site in sites)


class SharedTensors(nn.Module):
    """Parameters by name, the same for all sites.

    Not buffers: DDP would send them to every process in every step.
    """

    def __init__(self, first: Site, **shapes: tuple[int, ...]):
        """Trained parameters of these shapes, which are zero at first.

        first: a site whose weight has the device and the dtype.
        """
        super().__init__()
        for name, shape in shapes.items():
            zeros = torch.zeros(shape, **like_layer(first.module))
            self.register_parameter(name, nn.Parameter(zeros))

    @classmethod
    def frozen(cls, first: Site, **values: torch.Tensor) -> SharedTensors:
        """Frozen parameters of these values; on a model of shapes only they are on the CPU."""
        shared = cls(first)
        place = like_layer(first.module)
        if place["device"].type == "meta":
            place["device"] = torch.device("cpu")
        for name, value in values.items():
            parameter = nn.Parameter(value.to(**place), requires_grad=False)
            shared.register_parameter(name, parameter)
        return shared


class SharedPairs(nn.Module):
    """A child `pairN` for each, with A (r, in) and B (out, r), which are zero at first."""

    def __init__(self, first: Site):
        """first: a site whose weight has the device and the dtype."""
        super().__init__()
        self.place = like_layer(first.module)
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
                    zeros = torch.zeros(shape, **self.place)
                    pair.register_parameter(name, nn.Parameter(zeros))
                self.add_module(self.names[key], pair)
        self.places[site.name] = tuple(self.names[key] for key, _ in keys)

    def of(self, site_name: str) -> list[nn.Module]:
        """The pairs of a site, in the order of its keys."""
        return [self.get_submodule(name) for name in self.places[site_name]]
