"""Which token comes next: what is forbidden as a repetition, and how one is drawn."""

from __future__ import annotations

import torch
from torch import Tensor


def ban_repeats(scores: Tensor, written: Tensor, n: int) -> None:
    """Sets to -inf, in place, every token that would write an n-gram a second time; n = 0: none.

    scores: (..., vocabulary) of the next token; written: (..., length), the generated tokens alone, so a prompt may
    be quoted. With n = 3 and a b c a b written, c is out: a b c has been there.
    """
    if n == 0 or written.shape[-1] < n:
        return
    grams = written.unfold(-1, n, 1)  # (..., number, n)
    latest = written[..., written.shape[-1] - n + 1 :]
    again = (grams[..., :-1] == latest.unsqueeze(-2)).all(-1)
    ban = torch.zeros_like(again, dtype=scores.dtype).masked_fill_(again, -torch.inf)
    scores.scatter_add_(
        -1, grams[..., -1], ban
    )  # one token may end a gram that is out and one that is not


def draw(
    logits: Tensor, uniform: Tensor, temperature: float, top_k: int | None, top_p: float | None
) -> Tensor:
    """One token per row, (rows,), by the inverse of the distribution function: the same `uniform`, the same token.

    p = softmax(top_k largest of logits / temperature); of these the likeliest, until their sum reaches top_p (Holtzman
    et al. 2019, arXiv 1904.09751), renormalised. logits: (rows, vocabulary); uniform: (rows,) in [0, 1).
    """
    vocabulary = logits.shape[-1]
    values, tokens = (logits / temperature).topk(
        min(top_k or vocabulary, vocabulary)
    )  # likeliest first
    p = values.softmax(-1)
    if top_p is not None:
        p = p.masked_fill(p.cumsum(-1) - p >= top_p, 0.0)
        p[:, 0] = p[:, 0].clamp(min=torch.finfo(p.dtype).tiny)
    reached = p.cumsum(-1)
    place = torch.searchsorted(reached, uniform[:, None] * reached[:, -1:], right=True)
    last = (p > 0).sum(-1, keepdim=True) - 1  # rounding must not lead past what is allowed
    return tokens.gather(-1, place.minimum(last)).squeeze(-1)
