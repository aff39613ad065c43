r"""Adapter-P: y + A(N(x + y)) after the MLP of every block, where y is the MLP's output, x what is added to it, and N
the base's own layer norm, which the block ends in.

A(x) = W_up relu(W_down x + b_down) + b_up. Pfeiffer et al. 2021, arXiv 2005.00247. Its parameters are
L (2 d r + r + d). A block that does not end in a norm (GPT-2's, Llama's) has y + A(x + y), as AdapterHub has it.
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
    """Pfeiffer's adapters, one in a block."""

    name: Literal["adapter_p"] = "adapter_p"
    freezes_base: ClassVar[bool] = True
    merges: ClassVar[bool] = False
    r: int = Field(default=16, ge=1)
    """Width of the bottleneck."""

    def attach(
        self, model: nn.Module, roles: Roles, newly_initialised: Collection[str] = ()
    ) -> Attachment:
        from lorakit.methods.insert._bottleneck import after_blocks

        return after_blocks(model, self, roles, newly_initialised, self.r)


PLUGIN = AdapterP
