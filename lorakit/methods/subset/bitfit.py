"""BitFit: only the bias vectors train (Ben Zaken et al. 2021, arXiv 2106.10199)."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from lorakit.errors import ModelError
from lorakit.methods._base import Attachment, Method

if TYPE_CHECKING:
    from torch import nn

    from lorakit.nn.select import Roles


class BitFit(Method):
    """Every parameter with "bias" in its name, as the reference code has it."""

    name: Literal["bitfit"] = "bitfit"

    def attach(self, model: nn.Module, roles: Roles, fresh: Collection[str] = ()) -> Attachment:
        from lorakit.methods.subset._subset import SubsetAttachment

        names = {name for name, _ in model.named_parameters() if "bias" in name}
        if not names:
            raise ModelError(
                "bitfit: this architecture has no bias vectors (the Llama shape has none); take another method"
            )
        return SubsetAttachment(model, self, names, fresh)


PLUGIN = BitFit
