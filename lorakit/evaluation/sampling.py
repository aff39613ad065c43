"""The choice of the next token: n-grams that may not repeat, and sampling."""

from __future__ import annotations

import torch
from torch import Tensor


def ban_repeated_ngrams(scores: Tensor, generated: Tensor, n: int) -> None:
    """Set to -inf, in place, every token that would complete an n-gram a second time; n = 0: none.

    scores: (..., vocabulary) of the next token. generated: (..., length), without the prompt, so
    that the prompt may be quoted. With n = 3 and a b c a b generated, c is banned.
    """
    if n == 0 or generated.shape[-1] < n:
        return
    ngrams = generated.unfold(-1, n, 1)  # (..., number, n)
    latest = generated[..., generated.shape[-1] - n + 1 :]
    repeats = (ngrams[..., :-1] == latest.unsqueeze(-2)).all(-1)
    ban = torch.zeros_like(repeats, dtype=scores.dtype).masked_fill_(repeats, -torch.inf)
    # added, not assigned: a token may end both an n-gram that repeats and one that does not
    scores.scatter_add_(-1, ngrams[..., -1], ban)


def sample(
    logits: Tensor, uniform: Tensor, temperature: float, top_k: int | None, top_p: float | None
) -> Tensor:
    """One token per row, (rows,), by the inverse of the distribution function.

    p = softmax(top_k largest of logits / temperature), cut to the likeliest tokens whose sum
    reaches top_p (Holtzman et al. 2019, arXiv 1904.09751) and renormalised. logits: (rows,
    vocabulary). uniform: (rows,) in [0, 1); the same number gives the same token.
    """
    vocabulary = logits.shape[-1]
    # topk sorts, the likeliest token first
    values, tokens = (logits / temperature).topk(min(top_k or vocabulary, vocabulary))
    p = values.softmax(-1)
    if top_p is not None:
        p = p.masked_fill(p.cumsum(-1) - p >= top_p, 0.0)
        p[:, 0] = p[:, 0].clamp(min=torch.finfo(p.dtype).tiny)
    reached = p.cumsum(-1)
    place = torch.searchsorted(reached, uniform[:, None] * reached[:, -1:], right=True)
    # rounding must not lead past the last token that is allowed
    last = (p > 0).sum(-1, keepdim=True) - 1
    return tokens.gather(-1, place.minimum(last)).squeeze(-1)
