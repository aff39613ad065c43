r"""PrefixEmbedding: l_p tokens in front of the prompt and l_i behind it, whose embeddings alone train.

Hu et al. 2021, section 5.1 (PreEmbed), after Li and Liang 2021, arXiv 2101.00190. Its parameters are d (l_p + l_i). The
tokens take positions, as any token does. Each starts as the embedding of a real one: the first 5,000 of the vocabulary
are gone through in even steps. For decoders.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from lorakit.methods._base import Attachment
from lorakit.methods.prompt._tokens import PromptTokens

if TYPE_CHECKING:
    from torch import nn

    from lorakit.nn.select import Roles


class PrefixEmbedding(PromptTokens):
    """Embeddings of tokens that every row is given."""

    name: Literal["prefix_embedding"] = "prefix_embedding"
    prefix: int = Field(default=64, ge=0, le=100_000)
    """l_p: tokens in front of the prompt."""

    def attach(
        self, model: nn.Module, roles: Roles, newly_initialised: Collection[str] = ()
    ) -> Attachment:
        from lorakit.methods.prompt._prompt import PromptAttachment

        return PromptAttachment(model, self, roles, newly_initialised, layers=False)


PLUGIN = PrefixEmbedding
