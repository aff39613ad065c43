"""LoRA+PE: LoRA and PrefixEmbedding at once (Hu et al. 2021, appendix E and Table 15).

Its parameters are the sum of theirs: 2 L_LoRA d r + d (l_p + l_i). LoRA's products are folded in while texts are
generated; merged for good it cannot be.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar, Literal

from lorakit.methods._base import Attachment, Method
from lorakit.methods.prompt.prefix_embedding import PrefixEmbedding
from lorakit.methods.reparam.lora import LoRA

if TYPE_CHECKING:
    from torch import nn

    from lorakit.nn.select import Roles


class LoRAPrefixEmbedding(Method):
    """Low-rank adaptation of weights, and tokens that every row is given."""

    name: Literal["lora_prefix_embedding"] = "lora_prefix_embedding"
    freezes_base: ClassVar[bool] = True
    merges: ClassVar[bool] = False
    lora: LoRA = LoRA()
    """As method `lora`."""
    prompt: PrefixEmbedding = PrefixEmbedding(prefix=8, infix=4)
    """As method `prefix_embedding`; the paper has 8 and 4 here."""

    @property
    def added_tokens(self) -> int:
        return self.prompt.added_tokens

    def attach(self, model: nn.Module, roles: Roles, fresh: Collection[str] = ()) -> Attachment:
        from lorakit.methods.sum._sum import SumAttachment

        prompt = self.prompt.attach(model, roles, fresh)  # first: it refuses a model that is no decoder
        return SumAttachment(self, self.lora.attach(model, roles, fresh), prompt)


PLUGIN = LoRAPrefixEmbedding
