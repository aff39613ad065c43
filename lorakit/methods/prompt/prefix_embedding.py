r"""PrefixEmbedding: trained embeddings of l_p tokens before the prompt and l_i after it (Hu et al.
2021, section 5.1, PreEmbed, after Li and Liang 2021, arXiv 2101.00190).

    (e_1 ... e_lp, prompt, e_lp+1 ... e_lp+li, answer)

Each e (d) is an embedding. It trains d (l_p + l_i) numbers. The tokens take positions, like any
other. Each starts as the embedding of an existing token, evenly spaced among the first 5,000 of the
vocabulary. For decoders. With infix = 0 it is prompt tuning (Lester et al. 2021, arXiv 2104.08691),
and an adapter is then in PEFT's format.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lorakit.methods.prompt import PromptForm, PromptTokens


class PrefixEmbedding(PromptTokens):
    """Trained embeddings of tokens that are added to every row."""

    name: Literal["prefix_embedding"] = "prefix_embedding"
    tiny = {"prefix": 3, "infix": 2}
    prefix: int = Field(default=64, ge=0, le=100_000)
    """l_p: number of tokens before the prompt."""
    peft_prompt: ClassVar[PromptForm | None] = PromptForm(
        type="PROMPT_TUNING",
        reads=("PROMPT_TUNING", "P_TUNING"),
        to_peft=lambda method: {"prompt_tuning_init": "RANDOM"},
    )


PLUGIN = PrefixEmbedding
