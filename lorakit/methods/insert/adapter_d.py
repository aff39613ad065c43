r"""Adapter-D: Adapter-P, but not in the first blocks (Rücklé et al. 2021, arXiv 2010.11918).

    y + A(N(x + y))        A(z) = W_up relu(W_down z + b_down) + b_up

The symbols are those of `adapter_p`. It trains (L - drop) (2 d r + r + d) numbers in L blocks of
width d, and the first `drop` blocks have no backward pass. The LoRA paper copies numbers of this
method (AdapterDrop), and gives neither r nor drop.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from lorakit.methods._base import Attachment, Method

if TYPE_CHECKING:
    from torch import nn

    from lorakit.nn.select import Roles


class AdapterD(Method):
    """Pfeiffer's adapters in the upper blocks only."""

    name: Literal["adapter_d"] = "adapter_d"
    tiny = {"drop": 1}
    freezes_base: ClassVar[bool] = True
    merges: ClassVar[bool] = False
    r: int = Field(default=48, ge=1)
    """Width of the bottleneck; 48 is a sixteenth of RoBERTa base's width."""
    drop: int = Field(default=5, ge=0)
    """Number of blocks without an adapter, from the first on."""

    def attach(
        self,
        model: nn.Module,
        roles: Roles,
        newly_initialised: Collection[str] = (),
        begin: bool = True,
    ) -> Attachment:
        from lorakit.methods.insert._bottleneck import after_blocks

        return after_blocks(model, self, roles, newly_initialised, self.r, self.drop)


PLUGIN = AdapterD
