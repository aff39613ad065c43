"""Which way of keeping the past is right for a model: the fastest that gives the logits of a plain
forward pass.

Architectures differ in what they call a cache, in what a position is, in whether padding on the
left is seen, and in whether a state follows its beam; and a field that a model does not know can
vanish without a word. So before a model writes for the first time, a prompt is written on for a few
steps, beside a shorter one that is padded, with beams that change places and an example that
leaves, and compared with each text read alone, without a cache.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lorakit.errors import ModelError
from lorakit.evaluation.past import Past, Way, plain_logits, possible, read
from lorakit.nn.logits import last_logits
from lorakit.nn.prompt import added_tokens, prompt_ends

log = logging.getLogger(__name__)

EXACT, ROUNDED = 1e-3, 5e-2
"""Largest difference of the logits of a position, as root of the mean square and relative to that
of the logits around their mean: of a model in float32, and of one in half precision or
quantized."""
MOST_NOISE = 0.3
"""Where rounding alone makes up more than half of this, nothing can be told, and the plain way is
taken."""
LEAST = 6
"""Tokens of the prompt that is tried, at least."""
MARGIN = 8
PATHS = ([0, 0], [1, 0], [1, 1])
"""The earlier beam that each of two beams goes on from, step by step."""

_TEXTS: WeakKeyDictionary[nn.Module, dict[tuple[int, int], bool]] = WeakKeyDictionary()
_KNOWN: WeakKeyDictionary[nn.Module, dict[tuple[Way, int, int], bool]] = WeakKeyDictionary()


@torch.no_grad()
def way_of(model: nn.Module, input_ids: Tensor, attention_mask: Tensor, steps: int) -> Way:
    """The way for prompts (examples, length), padded on the left, and up to `steps` tokens after
    them.

    What was found for a model is kept. ModelError: the model cannot read a text without a cache at
    all.
    """
    length = input_ids.shape[1] + steps
    longest = int(attention_mask.sum(-1).argmax())
    prompt = input_ids[longest][attention_mask[longest] == 1]
    prompt = _stretched(prompt, min(length, _most(model.config)))
    known = _KNOWN.setdefault(model, {})
    for way in possible(model, length):
        # a window may be longer than what was tried before
        key = (way, added_tokens(model), length.bit_length())
        if key not in known:
            known[key] = _is_right(model, way, prompt)
        if known[key]:
            return way
    raise AssertionError("the last way is a plain forward pass")


@torch.no_grad()
def pads_right(model: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> bool:
    """Whether texts (rows, length) that are padded on the right get the logits that they get alone.

    What was found for a model is kept, for the number of the method's own tokens and the size of
    the length.
    """
    known = _TEXTS.setdefault(model, {})
    key = (added_tokens(model), input_ids.shape[1].bit_length())
    if key not in known:
        longest = int(attention_mask.sum(-1).argmax())
        known[key] = _is_padded_alike(model, input_ids[longest][attention_mask[longest] == 1])
    return known[key]


def _is_padded_alike(model: nn.Module, text: Tensor) -> bool:
    text = text.repeat(-(-LEAST // len(text)))
    half = text[: len(text) // 2]
    ids = torch.stack([text, torch.cat([half, text.new_zeros(len(text) - len(half))])])
    mask = torch.ones_like(ids)
    mask[1, len(half) :] = 0
    ends = torch.tensor([len(text), len(half)], device=ids.device)
    with torch.autocast(ids.device.type, enabled=False):
        fields = {"input_ids": ids, "attention_mask": mask, **prompt_ends(model, ends)}
        logits = last_logits(model, fields, len(text) - len(half) + 1)
        found = [_Text(text, len(text), [logits[0, -1]]), _Text(half, len(half), [logits[1, 0]])]
        right = all(_apart(text, _alone(model, text)) <= _allowed(model) for text in found)
    if not right:
        name = type(model).__name__
        log.info("%s sees padding: texts are read with others of their length only", name)
    return right


def _most(config: Any) -> int:
    """Tokens that a text may have; some architectures begin to count their positions at two or
    later."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return limit - MARGIN if isinstance(limit, int) else 10**9


def _stretched(prompt: Tensor, length: int) -> Tensor:
    """The prompt again and again, up to the length that texts may get; some steps are to follow."""
    wanted = max(LEAST, length - len(PATHS) - 1)
    return prompt.repeat(-(-wanted // len(prompt)))[:wanted]


def _is_right(model: nn.Module, way: Way, prompt: Tensor) -> bool:
    name, found = type(model).__name__, _difference(model, way, prompt)
    if way is not Way.WHOLE and found > _allowed(model):
        # rounding sends a token to other experts, in the same way as it does in another batch
        noise = torch.inf if _is_exact(model) else 2 * _difference(model, Way.WHOLE, prompt)
        if not found <= noise <= MOST_NOISE:
            log.debug("%s with %s: logits differ by %.1e from plain ones", name, way.value, found)
            return False
    if not way.pads:
        why = "no faster way gives it the logits of a plain forward pass"
        log.info("%s writes with %s: %s", name, way.value, why)
    return True


def _is_exact(model: Any) -> bool:
    quantized = getattr(model.config, "quantization_config", None) is not None
    return model.dtype in (torch.float32, torch.float64) and not quantized


def _allowed(model: nn.Module) -> float:
    return EXACT if _is_exact(model) else ROUNDED


def _difference(model: nn.Module, way: Way, prompt: Tensor) -> float:
    """The largest at any step; infinite where the model cannot be read that way. ModelError: it
    cannot read at all."""
    with torch.autocast(prompt.device.type, enabled=False):
        try:
            return max(_apart(text, _alone(model, text)) for text in _written(model, way, prompt))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a class says to a cache that it does not take
            if way is Way.WHOLE:
                raise ModelError(f"{type(model).__name__} cannot read a text: {error}") from error
            log.debug("%s with %s: %r", type(model).__name__, way.value, error)
            return torch.inf


@dataclass(frozen=True)
class _Text:
    """tokens: (length,), the first `prompt` of them given; logits: after the prompt, and after each
    token since."""

    tokens: Tensor
    prompt: int
    logits: list[Tensor]

    def then(self, token: Tensor, logits: Tensor) -> _Text:
        return _Text(torch.cat([self.tokens, token[None]]), self.prompt, [*self.logits, logits])


def _written(model: nn.Module, way: Way, prompt: Tensor) -> list[_Text]:
    """Two beams of two prompts, the second of which goes on for one step more."""
    other = prompt[len(prompt) // 2 :] if way.pads else prompt.flip(0)
    hidden = len(prompt) - len(other)
    ids = torch.stack([prompt, torch.cat([prompt[:hidden], other])])
    mask = torch.ones_like(ids)
    mask[1, :hidden] = 0
    past, first = read(model, ids, mask, len(PATHS) + 1, way)
    begun = zip((prompt, other), first, strict=True)
    rows = [[_Text(own, len(own), [after[0]])] * 2 for own, after in begun]
    for number, path in enumerate(PATHS):
        rows = _step(past, rows, prompt[number : number + 2], path)
    past.keep(torch.tensor([1], device=ids.device))
    return [*rows[0], *_step(past, rows[1:], prompt[-2:], [1, 0])[0]]


def of_one_length(attention_mask: Tensor) -> Iterator[Tensor]:
    """The numbers of the rows of each length, the shortest first."""
    lengths = attention_mask.sum(-1)
    for length in lengths.unique().tolist():
        yield (lengths == length).nonzero().flatten()


def _step(
    past: Past, rows: list[list[_Text]], tokens: Tensor, path: list[int]
) -> list[list[_Text]]:
    """tokens: (2,), what the two beams of every row write."""
    parents = torch.tensor([path] * len(rows), device=tokens.device)
    logits = past.step(tokens.expand(len(rows), -1), parents)
    return [
        [row[parent].then(tokens[beam], logits[n, beam]) for beam, parent in enumerate(path)]
        for n, row in enumerate(rows)
    ]


def _alone(model: nn.Module, text: _Text) -> Tensor:
    """(steps, vocabulary)"""
    return plain_logits(model, text.tokens[None], text.prompt, len(text.logits))[0]


def _apart(text: _Text, wanted: Tensor) -> float:
    found, wanted = torch.stack(text.logits).double(), wanted.double()
    never = torch.isinf(wanted) & (wanted == found)  # tokens that the model forbids
    found, wanted = found.masked_fill(never, 0), wanted.masked_fill(never, 0)
    spread = (wanted - wanted.mean(-1, keepdim=True)).pow(2).mean(-1)
    gap = (found - wanted).pow(2).mean(-1)
    relative = (gap / spread.clamp(min=torch.finfo(torch.float32).tiny)).sqrt()
    return float(relative.nan_to_num(nan=torch.inf).max())
