r"""How many directions dW really uses: its singular values sigma_1 >= sigma_2 >= ..., and two numbers made of them.

    effective rank = exp(-sum p_i ln p_i),  p_i = sigma_i / sum sigma      (Roy and Vetterli, EUSIPCO 2007)
    stable rank    = ||dW||_F^2 / ||dW||_2^2 = sum sigma^2 / sigma_1^2     (Rudelson and Vershynin 2007)

Both lie between 1 and the rank; n equal singular values give n. The stable rank is the smaller: it hardly sees what is
small beside sigma_1.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lorakit.analysis._change import KEPT, Change


@dataclass(frozen=True)
class Spectrum:
    """One site. full: the rank that dW could have. singular: the largest ones, at most KEPT."""

    site: str
    full: int
    effective: float
    stable: float
    first: float
    """Share of ||dW||_F^2 in the first direction."""
    singular: list[float]


def effective_rank(s: Tensor) -> float:
    """s: singular values (n). exp of the entropy of s / sum s; 0 where all are zero."""
    p = s[s > 0] / s.sum()
    return float((-(p * p.log()).sum()).exp()) if len(p) else 0.0


def stable_rank(s: Tensor) -> float:
    """s: singular values (n), largest first. 0 where all are zero."""
    return float(s.square().sum() / s[0].square()) if s[0] > 0 else 0.0


def spectrum(change: Change) -> Spectrum:
    """Of one change; W is not needed."""
    s = change.svd[1]
    stable = stable_rank(s)
    return Spectrum(
        change.site,
        len(s),
        effective_rank(s),
        stable,
        1 / stable if stable else 0.0,
        s[:KEPT].tolist(),
    )
