"""Decoding one text token by token, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from lorakit.evaluation.cache import prefill
from lorakit.evaluation.sampling import ban_repeated_ngrams, sample
from lorakit.evaluation.strategy import cache_strategy
from lorakit.recipe.evaluate import Decode


@torch.inference_mode()
def stream(
    model: nn.Module,
    prompt: Sequence[int],
    settings: Decode,
    ends: Sequence[int],
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """The tokens that the model writes after the prompt, without the end token.

    They are those of `decode` with one beam. model: a decoder in eval mode. generator: on the CPU,
    for `settings.sample`.
    """
    device = next(model.parameters()).device
    ids = torch.tensor([list(prompt)], device=device)
    mask = torch.ones_like(ids)
    steps = settings.max_new_tokens
    strategy = cache_strategy(model, ids, mask, steps)
    cache, logits = prefill(model, ids, mask, steps, strategy)
    written = ids.new_zeros(1, 0)
    parents = ids.new_zeros(1, 1)
    for step in range(steps):
        scores = logits[:, 0].float()
        ban_repeated_ngrams(scores, written, settings.no_repeat_ngram)
        if settings.sample:
            drawn = torch.rand(1, generator=generator).to(device)
            token = sample(scores, drawn, settings.temperature, settings.top_k, settings.top_p)
        else:
            token = scores.argmax(-1)
        if int(token) in ends:
            return
        yield int(token)
        written = torch.cat([written, token[:, None]], 1)
        if step + 1 < steps:
            logits = cache.step(token[:, None], parents)
