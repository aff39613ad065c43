r"""PrefixLayer: as PrefixEmbedding, and what those tokens are after every block is trained too, whatever the row says.

Hu et al. 2021, section 5.1 (PreLayer), after Li and Liang 2021, arXiv 2101.00190. Its parameters are L d (l_p + l_i):
the embeddings, and the output of every block but the last, which only the head reads, and that has to see the row. They
start as what the model makes of the tokens that PrefixEmbedding starts from, read alone. For decoders.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from lorakit.methods._base import Attachment
from lorakit.methods.prompt._tokens import PromptTokens

if TYPE_CHECKING:
    from torch import nn

    from lorakit.nn.select import Roles


class PrefixLayer(PromptTokens):
    """What tokens that every row is given are to each block."""

    name: Literal["prefix_layer"] = "prefix_layer"

    def attach(
        self, model: nn.Module, roles: Roles, newly_initialised: Collection[str] = ()
    ) -> Attachment:
        from lorakit.methods.prompt._prompt import PromptAttachment

        return PromptAttachment(model, self, roles, newly_initialised, layers=True)


PLUGIN = PrefixLayer
