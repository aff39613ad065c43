r"""Directions that training put among the loudest of a weight: intruder dimensions (Shuttleworth et al. 2024,
arXiv 2410.21228).

    y_j, one of the first k left-singular vectors of W + dW, is an intruder if  max_i |cos(y_j, x_i)| < epsilon

x_i: all left-singular vectors of W. k = 10 and epsilon = 0.5 are the reference code's. The measure compares with one
vector at a time: a y_j that mixes many x_i counts too, although their span holds it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lorakit.analysis._change import Change, svd

EPSILON, TOP = 0.5, 10


@dataclass(frozen=True)
class Intruders:
    """One site. cosines: max_i |cos(y_j, x_i)| for j = 1 ... k, from the largest singular value of W + dW on."""

    site: str
    cosines: list[float]
    count: int
    """How many of them are below epsilon."""


def nearest(before: Tensor, after: Tensor, top: int = TOP) -> Tensor:
    """before, after: (out, in) -> (top), the largest |cosine| of each of after's first vectors with one of before's."""
    u, y = svd(before)[0], svd(after)[0][:, :top]
    return (u.T @ y).abs().amax(0)


def intruders(change: Change, epsilon: float = EPSILON, top: int = TOP) -> Intruders:
    """Of a change whose W was read."""
    cosines = nearest(change.before, change.before + change.matrix, top)
    return Intruders(change.site, cosines.tolist(), int((cosines < epsilon).sum()))
