"""How large the change of each weight is: ||dW||_F / ||W||_F."""

from __future__ import annotations

from dataclasses import dataclass

from lorakit.analysis._change import Change


@dataclass(frozen=True)
class Norms:
    """One site."""

    site: str
    base: float
    """||W||_F"""
    delta: float
    """||dW||_F"""
    relative: float
    """delta / base, and delta where W is zero, as on a run's page."""


def norms(change: Change) -> Norms:
    """Of a change whose W was read."""
    # ||dW||_F is the norm of its singular values, and two factors have them without their product
    delta = float((change.matrix if change.factors is None else change.svd[1]).norm())
    base = float(change.before.norm())
    return Norms(change.site, base, delta, delta / (base or 1.0))
