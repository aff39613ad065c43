"""BitFit: the bias vectors train, and nothing else does (Ben Zaken et al. 2021, arXiv 2106.10199).

h = W x + b        b trains; W is frozen
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from lorakit.errors import ModelError
from lorakit.methods._base import Attachment, Method

if TYPE_CHECKING:
    from torch import nn

    from lorakit.nn.select import Roles


class BitFit(Method):
    """Trains every parameter with "bias" in its name, as the reference code does."""

    name: Literal["bitfit"] = "bitfit"

    def attach(
        self,
        model: nn.Module,
        roles: Roles,
        newly_initialised: Collection[str] = (),
        begin: bool = True,
    ) -> Attachment:
        import torch

        from lorakit.methods.subset._subset import SubsetAttachment

        biases = {
            name: p
            for name, p in model.named_parameters()
            if "bias" in name and name not in newly_initialised
        }
        if any(p.dtype in (torch.float16, torch.bfloat16) for p in biases.values()):
            raise ModelError(
                "bitfit: a float32 bias does not fit a weight in half precision; "
                "take model.dtype=fp32"
            )
        if not biases:
            raise ModelError(
                "bitfit: this architecture has no bias vectors (the Llama shape has none); "
                "take another method"
            )
        return SubsetAttachment(model, self, biases.keys(), newly_initialised)


PLUGIN = BitFit
