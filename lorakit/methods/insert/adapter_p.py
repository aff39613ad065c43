r"""Adapter-P: an adapter after the MLP of each block (Pfeiffer et al. 2021, arXiv 2005.00247).

    y + A(N(x + y))        A(z) = W_up relu(W_down z + b_down) + b_up

y (d) is the MLP's output, x the residual that is added to it, and N the base's own layer norm at
the end of the block; W_down is (r, d) and W_up (d, r). It trains L (2 d r + r + d) numbers in L
blocks. A block that does not end in a norm (GPT-2, Llama) has y + A(x + y), as in AdapterHub.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from lorakit.methods._base import Attachment, Method

if TYPE_CHECKING:
    from torch import nn

    from lorakit.nn.select import Roles


class AdapterP(Method):
    """Pfeiffer's adapters, one per block."""

    name: Literal["adapter_p"] = "adapter_p"
    freezes_base: ClassVar[bool] = True
    merges: ClassVar[bool] = False
    r: int = Field(default=16, ge=1)
    """Width of the bottleneck."""

    def attach(
        self,
        model: nn.Module,
        roles: Roles,
        newly_initialised: Collection[str] = (),
        begin: bool = True,
    ) -> Attachment:
        from lorakit.methods.insert._bottleneck import after_blocks

        return after_blocks(model, self, roles, newly_initialised, self.r)


PLUGIN = AdapterP
