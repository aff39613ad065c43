r"""PrefixLayer: as PrefixEmbedding, and what those tokens are after every block is trained too, whatever the row says.

Hu et al. 2021, section 5.1 (PreLayer), after Li and Liang 2021, arXiv 2101.00190. Its parameters are L d (l_p + l_i):
the embeddings, and the output of every block but the last, which only the head reads, and that has to see the row. They
start as what the model makes of the tokens that PrefixEmbedding starts from, read alone. For decoders.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from lorakit.methods._base import Attachment, Method

if TYPE_CHECKING:
    from torch import nn

    from lorakit.nn.select import Roles


class PrefixLayer(Method):
    """What tokens that every row is given are to each block."""

    name: Literal["prefix_layer"] = "prefix_layer"
    freezes_base: ClassVar[bool] = True
    merges: ClassVar[bool] = False
    prefix: int = Field(default=8, ge=0, le=100_000)
    """l_p: tokens in front of the prompt."""
    infix: int = Field(default=8, ge=0, le=100_000)
    """l_i: tokens behind the prompt, before the answer."""

    @model_validator(mode="after")
    def _some(self) -> PrefixLayer:
        if not self.added_tokens:
            raise ValueError("prefix and infix are both 0: there is nothing to train")
        return self

    @property
    def added_tokens(self) -> int:
        return self.prefix + self.infix

    def attach(self, model: nn.Module, roles: Roles, fresh: Collection[str] = ()) -> Attachment:
        from lorakit.methods.prompt._prompt import PromptAttachment

        return PromptAttachment(model, self, roles, fresh, layers=True)


PLUGIN = PrefixLayer
