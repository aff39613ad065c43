r"""PrefixLayer: PrefixEmbedding, with trained hidden states of its tokens after each block too (Hu
et al. 2021, section 5.1, PreLayer, after Li and Liang 2021, arXiv 2101.00190).

    h_l(i) = v_l(i)    for block l = 0 ... L - 1 and token i = 1 ... l_p + l_i

v_0 are the embeddings and v_l (d) replaces the output of block l; that of the last block is left as
it is, because the head alone reads it. It trains L d (l_p + l_i) numbers in L blocks. The vectors
start as the model's own hidden states of the tokens that PrefixEmbedding starts from. For decoders.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from lorakit.methods.prompt import PromptTokens


class PrefixLayer(PromptTokens):
    """Trained hidden states, for each block, of tokens that are added to every row."""

    name: Literal["prefix_layer"] = "prefix_layer"
    tiny = {"prefix": 3, "infix": 2}
    per_block: ClassVar[bool] = True


PLUGIN = PrefixLayer
