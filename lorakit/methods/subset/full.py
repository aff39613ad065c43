"""Full fine-tuning: every parameter of the base model trains.

h = (W0 + dW) x        dW (out, in) has any rank
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar, Literal

from lorakit.methods._base import Attachment, Method

if TYPE_CHECKING:
    from torch import nn

    from lorakit.nn.select import Roles


class Full(Method):
    """Trains all weights and biases."""

    name: Literal["full"] = "full"
    on_quantized: ClassVar[bool] = False

    def attach(
        self,
        model: nn.Module,
        roles: Roles,
        newly_initialised: Collection[str] = (),
        begin: bool = True,
    ) -> Attachment:
        from lorakit.methods.subset._subset import SubsetAttachment

        return SubsetAttachment(
            model, self, {name for name, _ in model.named_parameters()}, newly_initialised
        )


PLUGIN = Full
