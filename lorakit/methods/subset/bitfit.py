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
    """Trains every parameter that its module calls a bias.

    The reference code looks for "bias" in the whole name, where T5 and MPNet also have the module
    `relative_attention_bias`, a table of attention scores.
    """

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
            if "bias" in name.rpartition(".")[2] and name not in newly_initialised
        }
        if any(p.dtype in (torch.float16, torch.bfloat16) for p in biases.values()):
            raise ModelError(
                "bitfit: a float32 bias does not fit a weight in half precision; "
                "take model.dtype=fp32"
            )
        if not biases:
            raise ModelError(
                "bitfit: this architecture has no bias vectors (Llama and T5 have none); "
                "take another method"
            )
        return SubsetAttachment(model, self, biases.keys(), newly_initialised)


PLUGIN = BitFit
