"""A causal model writes: greedily, by drawing, or by beam search. Each prompt is read once, whatever the beams.

Beam search keeps the b likeliest unfinished texts, s(y) = sum_t log p(y_t | prompt, y_<t). Of the (1 + e) b likeliest
continuations (e: number of end tokens, at least 1) those that end are finished if they are among the first b; the first
b of the rest go on, so a finished text is replaced. A finished text counts s(y) / n ** length_penalty, n: its generated
tokens, the end token included. An example is done when b texts are finished and the best unfinished one, at its present
length, counts no more than the worst of them; or after max_new_tokens, when unfinished texts compete as they stand.
This is `generate(num_beams=b, early_stopping=False)` of transformers, token by token, except that no_repeat_ngram looks
at generated tokens only (transformers' looks at the prompt too).

The decoder of the LoRA paper's reference code (gpt2_beam.py) counts finished texts in the same way and differs in
three things: only the b likeliest continuations are looked at, so where some of them end, fewer go on, and the places
are filled at the next step; it always runs all steps; and what no_repeat_ngram forbids is taken out before the softmax,
so that the other tokens become likelier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lorakit.errors import ModelError
from lorakit.evaluation.choose import ban_repeats, draw
from lorakit.evaluation.past import Way, read
from lorakit.evaluation.way import of_one_length, way_of
from lorakit.nn.settings import setting
from lorakit.recipe.schema import Decode

NEVER = -1e9
"""The score of a text that is not there: below every real one."""
CROWDED = 7 / 8
"""The batch shrinks to its unfinished examples when they are at most this share: to shrink copies keys and values."""


@dataclass(frozen=True)
class Written:
    """ids: generated tokens without the end token; ended: an end token came, else max_new_tokens cut it;
    score: sum log p / n ** length_penalty of all n generated tokens, the end token included."""

    ids: list[int]
    ended: bool
    score: float


@torch.inference_mode()
def decode(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    settings: Decode,
    eos_ids: Sequence[int],
    uniform: Tensor | None = None,
) -> list[Written]:
    """What the model writes after each prompt, (examples, length) padded on the left, whatever else is in the batch.

    model: decoder only, in eval mode; a ModelError otherwise. eos_ids: each of them ends a text. uniform: for
    `settings.sample`, (examples, max_new_tokens) numbers in [0, 1) that decide the draws: torch.rand(..., generator=g).
    Examples that are done leave the batch.
    """
    if setting(model.config, "is_encoder_decoder", False):
        raise ModelError(
            f"{type(model).__name__} is an encoder-decoder: lorakit generates with decoders only"
        )
    written: dict[int, Written] = {}
    ends = torch.tensor(list(eos_ids), dtype=torch.long, device=input_ids.device)
    way = way_of(model, input_ids, attention_mask, settings.max_new_tokens)
    everyone = torch.arange(len(input_ids), device=input_ids.device)
    for rows in [everyone] if way.pads else of_one_length(attention_mask):
        own = None if uniform is None else uniform[rows]
        ids, mask = _trimmed(input_ids[rows], attention_mask[rows], way)
        written |= zip(
            rows.tolist(), _decode(model, ids, mask, settings, ends, own, way), strict=True
        )
    return [written[i] for i in range(len(written))]


def _trimmed(ids: Tensor, mask: Tensor, way: Way) -> tuple[Tensor, Tensor]:
    if way.pads:
        return ids, mask
    length = int(mask[0].sum())
    return ids[:, ids.shape[1] - length :], mask[:, ids.shape[1] - length :]


def _decode(
    model: nn.Module,
    ids: Tensor,
    mask: Tensor,
    settings: Decode,
    ends: Tensor,
    uniform: Tensor | None,
    way: Way,
) -> list[Written]:
    answers: dict[int, Written] = {}
    rows = list(range(len(ids)))
    past, logits = read(model, ids, mask, settings.max_new_tokens, way)
    search = (
        _Beams(logits, settings, ends)
        if settings.beams > 1
        else _OneText(logits, settings, ends, uniform)
    )
    while True:
        tokens, parents, done = search.step(logits)
        for row in done.nonzero().flatten().tolist():
            if rows[row] not in answers:
                answers[rows[row]] = search.written(row)
        if len(answers) == len(ids):
            return [answers[i] for i in range(len(answers))]
        stay = [row for row, example in enumerate(rows) if example not in answers]
        if len(stay) <= len(rows) * CROWDED:
            rows = [rows[row] for row in stay]
            chosen = torch.tensor(stay, device=tokens.device)
            past.keep(chosen)
            search.keep(chosen)
            tokens, parents = tokens[chosen], parents[chosen]
        logits = past.step(tokens, parents)


class _OneText:
    """Greedy: the likeliest token; or one drawn. `step` takes logits (examples, 1, vocabulary)."""

    def __init__(self, logits: Tensor, settings: Decode, ends: Tensor, uniform: Tensor | None):
        self.settings, self.ends, self.uniform = settings, ends, uniform
        if settings.sample and uniform is None:
            raise ValueError("sample: true needs the numbers that decide the draws (uniform)")
        self.tokens = logits.new_zeros(len(logits), 0, dtype=torch.long)
        self.total = logits.new_zeros(len(logits), dtype=torch.float)
        self.ended = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)

    def step(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s, n, scores = self.settings, self.tokens.shape[1] + 1, logits[:, 0].float()
        normaliser = scores.logsumexp(-1)
        ban_repeats(scores, self.tokens, s.no_repeat_ngram)
        if self.uniform is None or not s.sample:
            token = scores.argmax(-1)
        else:
            token = draw(scores, self.uniform[:, n - 1], s.temperature, s.top_k, s.top_p)
        self.total = self.total + scores.gather(1, token[:, None]).squeeze(1) - normaliser
        self.tokens = torch.cat([self.tokens, token[:, None]], 1)
        self.ended = torch.isin(token, self.ends)
        return (
            token[:, None],
            torch.zeros_like(token[:, None]),
            self.ended | (n == s.max_new_tokens),
        )

    def written(self, row: int) -> Written:
        ids, ended = self.tokens[row].tolist(), bool(self.ended[row])
        score = self.total[row].item() / len(ids) ** self.settings.length_penalty
        return Written(ids[:-1] if ended else ids, ended, score)

    def keep(self, rows: Tensor) -> None:
        self.tokens, self.total = self.tokens[rows], self.total[rows]
        self.uniform = None if self.uniform is None else self.uniform[rows]


class _Beams:
    """The search of the module's docstring. `step` takes logits (examples, beams, vocabulary); 1 beam at first."""

    def __init__(self, logits: Tensor, settings: Decode, ends: Tensor):
        examples, _, vocabulary = logits.shape
        self.settings, self.ends, self.width = settings, ends, settings.beams
        self.candidates = self.width * max(2, 1 + len(ends))
        if self.width > vocabulary - len(ends):
            raise ModelError(
                f"decode.beams {self.width} is too many for a vocabulary of {vocabulary} tokens"
            )
        self.tokens = logits.new_zeros(examples, 1, 0, dtype=torch.long)
        self.totals = logits.new_zeros(examples, 1, dtype=torch.float)
        self.finished = self.totals.new_full((examples, self.width), NEVER)
        """What the finished texts count, the best first."""
        self.best = self.tokens.new_zeros(examples, settings.max_new_tokens)
        self.length = self.tokens.new_zeros(examples)
        self.ended = torch.zeros_like(self.length, dtype=torch.bool)

    def step(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s, n, vocabulary = self.settings, self.tokens.shape[-1] + 1, logits.shape[-1]
        scores = logits.float().log_softmax(-1)
        ban_repeats(scores, self.tokens, s.no_repeat_ngram)
        scores = scores.add_(self.totals.unsqueeze(-1)).flatten(1)
        totals, where = scores.topk(min(self.candidates, scores.shape[1]))
        parents, tokens = where // vocabulary, where % vocabulary
        texts = torch.cat([_rows(self.tokens, parents), tokens.unsqueeze(-1)], -1)
        ends = torch.isin(tokens, self.ends)
        self._finish(texts, totals, ends, n)
        self.totals, on = (totals + ends * NEVER).topk(self.width)
        self.tokens = _rows(texts, on)
        done = self.totals[:, 0] / n**s.length_penalty <= self.finished[:, -1]
        return tokens.gather(1, on), parents.gather(1, on), done | (n == s.max_new_tokens)

    def _finish(self, texts: Tensor, totals: Tensor, ends: Tensor, n: int) -> None:
        s, width = self.settings, self.width
        closed = ends[:, :width] | (n == s.max_new_tokens)
        counts = (totals[:, :width] / n**s.length_penalty).masked_fill(~closed, NEVER)
        count, which = counts.max(1)
        better = count > self.finished[:, 0]
        text = _rows(texts, which[:, None]).squeeze(1)
        self.best[:, :n] = torch.where(better[:, None], text, self.best[:, :n])
        self.length = torch.where(better, n, self.length)
        self.ended = torch.where(better, ends.gather(1, which[:, None]).squeeze(1), self.ended)
        self.finished = torch.cat([self.finished, counts], 1).topk(width)[0]

    def written(self, row: int) -> Written:
        ids, ended = self.best[row, : int(self.length[row])].tolist(), bool(self.ended[row])
        return Written(ids[:-1] if ended else ids, ended, self.finished[row, 0].item())

    def keep(self, rows: Tensor) -> None:
        for name in ("tokens", "totals", "finished", "best", "length", "ended"):
            setattr(self, name, getattr(self, name)[rows])


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """values: (examples, n, length); index: (examples, m) -> (examples, m, length)"""
    return torch.take_along_dim(values, index.unsqueeze(-1), 1)
