r"""Adapter-L: an adapter with a layer norm after the MLP of each block (Lin et al. 2020, arXiv
2004.03829).

    y + A(LayerNorm(y))        A(z) = W_up relu(W_down z + b_down) + b_up

y (d) is the MLP's output, before the residual is added; W_down is (r, d) and W_up (d, r). The layer
norm is newly initialised and trains. It trains L (2 d r + r + d) + 2 L d numbers in L blocks.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from lorakit.methods._base import Attachment, Method

if TYPE_CHECKING:
    from torch import nn

    from lorakit.nn.select import Roles


class AdapterL(Method):
    """Lin's adapters, one per block, each with a layer norm."""

    name: Literal["adapter_l"] = "adapter_l"
    freezes_base: ClassVar[bool] = True
    merges: ClassVar[bool] = False
    r: int = Field(default=8, ge=1)
    """Width of the bottleneck."""

    def attach(
        self,
        model: nn.Module,
        roles: Roles,
        newly_initialised: Collection[str] = (),
        begin: bool = True,
    ) -> Attachment:
        from lorakit.methods.insert._bottleneck import Normed, attached
        from lorakit.nn.select import select

        sites = select(model, ["mlp_out"], roles, skip=newly_initialised)
        inserts = [(s, Normed(s.shape[0], self.r, s.module)) for s in sites]
        return attached(model, self, newly_initialised, inserts)


PLUGIN = AdapterL
