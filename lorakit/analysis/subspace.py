r"""How much of one adapter's directions another has: Figures 3 and 4 of the LoRA paper (section 7.2, appendix G).

    phi(A1, A2, i, j) = ||V1_i^T V2_j||_F^2 / min(i, j)  =  (sum sigma^2) / p,    p = min(i, j)

V_i: the first i right-singular vectors of A (r, in), which lie in the input space of W. sigma: the singular values of
V1_i^T V2_j, the cosines of the angles between the two subspaces. 1: one holds the other; 0: they are orthogonal.

The paper prints phi = (1 - d^2) / p with the projection metric d^2 = p - sum sigma^2, and speaks of left-singular
vectors in appendix G: both are misprints, 1 - d^2 / p and the right-singular ones are what its section 7.2 says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lorakit.analysis._change import Change, svd
from lorakit.errors import InputError

Map = list[list[float]]
"""phi by i - 1, then j - 1."""


@dataclass(frozen=True)
class Overlap:
    """Two adapters at one site; a row of `phi` for each direction of the one with the smaller rank.

    random: the same of two Gaussian matrices of these shapes. width: the input's. each: phi(1,1) and phi(p,p), p the
    smaller rank, of every pair, where `phi` is the mean over several.
    """

    site: str
    width: int
    phi: Map
    random: Map
    each: list[tuple[float, float]]

    @property
    def ranks(self) -> tuple[int, int]:
        return len(self.phi), len(self.phi[0])


def directions(a: Tensor) -> Tensor:
    """a: (r, in) -> (in, n), its right-singular vectors, those of the largest singular values first."""
    return svd(a.double())[2]


def similarity(a1: Tensor, a2: Tensor) -> Tensor:
    """a1: (r1, in), a2: (r2, in) -> (r1, r2) with phi(A1, A2, i, j) at [i - 1, j - 1], all in [0, 1]."""
    squares = (directions(a1).T @ directions(a2)).square()
    i, j = torch.arange(1, squares.shape[0] + 1).unsqueeze(1), torch.arange(1, squares.shape[1] + 1)
    return squares.cumsum(0).cumsum(1) / torch.minimum(i, j)


def random_similarity(r1: int, r2: int, width: int, seed: int = 0) -> Tensor:
    """The control of Figure 4: phi of two Gaussian matrices, (r1, r2). Its expectation is max(i, j) / width."""
    generator = torch.Generator().manual_seed(seed)
    draw = (torch.randn(r, width, generator=generator, dtype=torch.float64) for r in (r1, r2))
    return similarity(*draw)


def overlaps(pairs: Sequence[tuple[Sequence[Change], Sequence[Change]]]) -> list[Overlap]:
    """At every site that all have: the mean over the pairs. InputError: no site in common, or another input width."""
    named = [({c.site: c for c in first}, {c.site: c for c in second}) for first, second in pairs]
    common = [site for site in named[0][0] if all(site in of for pair in named for of in pair)]
    if not common:
        (first, second), *_ = named
        raise InputError(
            f"they have no weight in common: one adapts {', '.join(list(first)[:2])} ..., "
            f"the other {', '.join(list(second)[:2])} ..."
        )
    return [
        _overlap(site, [(first[site], second[site]) for first, second in named]) for site in common
    ]


def _overlap(site: str, pairs: Sequence[tuple[Change, Change]]) -> Overlap:
    found = []
    for pair in pairs:
        a1, a2 = sorted((_a(change) for change in pair), key=len)
        if a1.shape[1] != a2.shape[1]:
            raise InputError(
                f"{site} reads {a1.shape[1]} numbers in one and {a2.shape[1]} in the other: other models"
            )
        found.append(similarity(a1, a2))
    phi, width = torch.stack(found).mean(0), _a(pairs[0][0]).shape[1]
    random = random_similarity(*phi.shape, width)  # type: ignore[call-arg]
    p = min(phi.shape) - 1
    return Overlap(
        site,
        width,
        phi.tolist(),
        random.tolist(),
        [(float(f[0, 0]), float(f[p, p])) for f in found],
    )


def _a(change: Change) -> Tensor:
    assert change.factors is not None
    return change.factors[1]
