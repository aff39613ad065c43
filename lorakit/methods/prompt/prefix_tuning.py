r"""Prefix-tuning: trained keys and values of l_p positions before each row, in every layer.

    Attention(Q, [P_K ; K], [P_V ; V])        P_K, P_V (l_p, d_kv) in each layer

d_kv is the width of the keys: the number of key-value heads times the width of a head. It trains
2 L l_p d_kv numbers. With `hidden`, a network gives them, as in the paper: z (l_p, d_kv) trains,
and so do two layers, W_2 tanh(W_1 z + b_1) + b_2. Li and Liang 2021, arXiv 2101.00190. As in PEFT's
code, the keys have no rotary angle. Unlike there, the first values of P are the keys and values of
common tokens, which the paper found better than random ones. Adapters are in PEFT's format and hold
P; the network is held too, for further training here.

When to use: for a decoder whose weights must not change, as `prefix_layer`, which is the form that
the LoRA paper measured. It is the form of the adapters that others have published. The positions
cost attention in each forward pass, and cannot be merged.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lorakit.methods.prompt import PromptAttachment, PromptForm, PromptTokens


class PrefixTuning(PromptTokens):
    """Trained keys and values before every row."""

    name: Literal["prefix_tuning"] = "prefix_tuning"
    tiny = {"prefix": 3}
    # they are in the cache, which a recomputed block does not have
    recomputes = False
    prefix: int = Field(default=20, ge=0, le=100_000)
    """l_p: number of positions before the row."""
    infix: int = Field(default=0, ge=0, le=0)
    """Always 0: keys and values are before the row."""
    hidden: int | None = Field(default=None, ge=1)
    """Width of the network that gives the prefix; None: it trains as it is."""
    peft_prompt: ClassVar[PromptForm | None] = PromptForm(
        type="PREFIX_TUNING",
        reads=("PREFIX_TUNING",),
        # the file holds what the network gives, so that PEFT needs none
        to_peft=lambda method: {"prefix_projection": False},
    )

    def attachment_class(self) -> type[PromptAttachment]:
        from lorakit.methods.prompt._key_values import PrefixAttachment

        return PrefixAttachment


PLUGIN = PrefixTuning
