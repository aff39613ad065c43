"""What a causal model has read: keys and values of the prompt and of every beam, and the logits that come next.

Which of the ways below is right for a model is found out by trying (`evaluate.way`).
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from lorakit.fast.attention import NAME
from lorakit.nn.prompt import added_tokens, prompt_ends

TIDY = 8
"""Steps of a beam search between two times that tokens which no beam goes back to are dropped."""
CACHES = ("past_key_values", "cache_params")
"""What forward passes call a cache; a model that knows another kind of state is read without one."""


class Way(Enum):
    """How the past is kept, the fastest first. The last two take prompts of one length only."""

    SHARED = "a cache that the beams share"
    COPIED = "a cache per beam"
    UNPADDED = "a cache per beam, for prompts of one length at a time"
    WHOLE = "no cache, reading the whole text at every step"

    @property
    def pads(self) -> bool:
        """Whether prompts of several lengths may be read together."""
        return self in (Way.SHARED, Way.COPIED)


def read(
    model: nn.Module, input_ids: Tensor, attention_mask: Tensor, steps: int, way: Way
) -> tuple[Past, Tensor]:
    """Each prompt, (examples, length) with padding on the left, once; and the logits (examples, 1, vocabulary).

    steps: how many tokens may follow. way: SHARED only where `possible` says so; without padding where it takes none.
    """
    if way is Way.WHOLE:
        whole = WholePast(model, input_ids)
        return whole, whole.logits(1)
    shared = way is Way.SHARED
    cache = Cache(layer_class_to_replicate=_Roomy) if shared else DynamicCache(config=model.config)  # type: ignore[arg-type]
    forward = _Forward(model, cache)
    if way is Way.UNPADDED:
        return CopiedPast(forward, None), forward(input_ids, None, None, 1)
    logits = forward(input_ids, attention_mask, (attention_mask.cumsum(-1) - 1).clamp(min=0), 1)
    # tokens of the method's own are in the cache too; at the end, for rows are padded on the left
    seen = torch.cat(
        [attention_mask, attention_mask.new_ones(len(attention_mask), added_tokens(model))], 1
    )
    return (SharedPast if shared else CopiedPast)(forward, seen), logits


def possible(model: nn.Module, length: int) -> list[Way]:
    """The ways that may be right for texts of up to `length` tokens, as far as the model's own words go."""
    if not any(name in known_fields(model) for name in CACHES) or _positions_move(
        model.config, length
    ):
        return [Way.WHOLE]
    cached = [Way.COPIED, Way.UNPADDED, Way.WHOLE]
    return [Way.SHARED, *cached] if _sees_by_mask(model, length + added_tokens(model)) else cached


def known_fields(model: nn.Module) -> Collection[str]:
    """What the forward pass names; what it does not may vanish in its `**kwargs`, so it is not given."""
    return inspect.signature(type(model).forward).parameters.keys()


def _positions_move(config: Any, length: int) -> bool:
    """Whether rotary angles of a text of that length depend on its length, so that older keys have other ones."""
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    for own in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if own.get("rope_type") in ("dynamic", "longrope"):
            first = own.get("original_max_position_embeddings") or getattr(
                text, "max_position_embeddings", length
            )
            if length > first:
                return True
    return False


def plain_logits(model: nn.Module, tokens: Tensor, prompt: int, last: int) -> Tensor:
    """(rows, last, vocabulary): of the last tokens of whole texts (rows, length), read without a cache or padding.

    prompt: how many of the tokens are the prompt.
    """
    known = known_fields(model)
    optional = {
        "attention_mask": torch.ones_like(tokens),
        "use_cache": False,
        "logits_to_keep": last,
    }
    fields = {name: value for name, value in optional.items() if name in known}
    fields |= prompt_ends(model, torch.full((len(tokens),), prompt, device=tokens.device))
    return model(input_ids=tokens, **fields).logits[:, -last:]


def _sees_by_mask(model: nn.Module, length: int) -> bool:
    """Whether a mask and positions alone decide what a token sees: not with ALiBi, a shorter window, or a state."""
    config: Any = model.config
    cache: Any = DynamicCache(config=config)
    return (
        getattr(
            model, "_supports_attention_backend", False
        )  # transformers' word for: attention as all others have it
        and config._attn_implementation in ("eager", "sdpa", NAME)
        and "position_ids" in known_fields(model)
        and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)
        and all(getattr(layer, "sliding_window", length) >= length for layer in cache.layers)
    )


class _Forward:
    """The model and its cache; fields that its forward pass does not know are left out."""

    def __init__(self, model: nn.Module, cache: Any):
        self.model, self.cache = model, cache
        self.known = known_fields(model)
        self.name = next(name for name in CACHES if name in self.known)

    def __call__(
        self, tokens: Tensor, mask: Tensor | None, positions: Tensor | None, last: int
    ) -> Tensor:
        """Logits of the `last` tokens of each row. Without mask and positions the model counts itself."""
        optional = {
            "attention_mask": mask,
            "position_ids": positions,
            "logits_to_keep": last,
            "use_cache": True,
        }
        fields = {
            name: value
            for name, value in optional.items()
            if value is not None and name in self.known
        }
        outputs = self.model(input_ids=tokens, **{self.name: self.cache}, **fields)
        return outputs.logits[:, -last:]


class _Roomy(DynamicLayer):
    """Keys and values with room for some steps: a step writes its own, where DynamicLayer copies all there are."""

    keys: Any
    values: Any
    room: Any

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            return self._hold(key_states, value_states)
        n, new = self.used, key_states.shape[-2]
        if n + new > self.room[0].shape[-2]:
            self.room = [_longer(whole, n, TIDY * new) for whole in self.room]
        for whole, states in zip(self.room, (key_states, value_states), strict=True):
            whole[..., n : n + new, :] = states
        return self._show(n + new)

    def select(self, slots: Tensor) -> None:
        """slots: (examples, n), the tokens to keep of each example."""
        index = slots[:, None, :, None]
        self._hold(*(w.gather(2, index.expand(-1, w.shape[1], -1, w.shape[3])) for w in self.room))

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._hold(*(whole[beam_idx, :, : self.used] for whole in self.room))

    def _hold(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        self.room = [keys, values]
        return self._show(keys.shape[-2])

    def _show(self, used: int) -> tuple[Tensor, Tensor]:
        self.used = used
        self.keys, self.values = shown = self.room[0][..., :used, :], self.room[1][..., :used, :]
        return shown


def _longer(whole: Tensor, used: int, more: int) -> Tensor:
    rows, heads, _, size = whole.shape
    longer = whole.new_empty(rows, heads, used + more, size)
    longer[..., :used, :] = whole[..., :used, :]
    return longer


class SharedPast:
    """All beams of an example are one row, and every token in it is kept once; a mask says who sees whom.

    The prompt is not copied per beam, and when the search drops a beam and forks another, only rows of the mask move.
    Every few steps the tokens that no beam goes back to are dropped.
    """

    def __init__(self, forward: _Forward, attention_mask: Tensor):
        self.forward, self.positions, self.steps = forward, attention_mask.sum(-1, keepdim=True), 0
        self.hidden = torch.finfo(forward.model.dtype).min  # type: ignore[arg-type]
        seen = torch.zeros_like(attention_mask, dtype=forward.model.dtype)  # type: ignore[arg-type]
        self.mask = seen.masked_fill_(attention_mask == 0, self.hidden).unsqueeze(
            1
        )  # (examples, beams, keys)

    def step(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """tokens, parents: (examples, beams), what each beam writes and the earlier beam that it goes on from."""
        width = tokens.shape[1]
        self.steps += 1
        if width > 1 and self.steps % TIDY == 0:
            self._drop_unseen()
        own = torch.full(
            (width, width), self.hidden, dtype=self.mask.dtype, device=self.mask.device
        ).fill_diagonal_(0)
        inherited = torch.take_along_dim(self.mask, parents.unsqueeze(-1), 1)
        self.mask = torch.cat([inherited, own.expand(len(tokens), -1, -1)], -1)
        logits = self.forward(
            tokens, self.mask.unsqueeze(1), self.positions.expand_as(tokens), width
        )
        self.positions = self.positions + 1
        return logits

    def keep(self, examples: Tensor) -> None:
        """Forget all other examples."""
        self.forward.cache.reorder_cache(examples)
        self.mask, self.positions = self.mask[examples], self.positions[examples]

    def _drop_unseen(self) -> None:
        seen = (self.mask == 0).any(1)  # (examples, keys)
        slots = seen.byte().topk(int(seen.sum(-1).max()))[
            1
        ]  # no matter in which order: positions are in the keys
        self.mask = torch.take_along_dim(self.mask, slots.unsqueeze(1), -1)
        for layer in self.forward.cache.layers:
            layer.select(slots)


class CopiedPast:
    """A row per beam, with keys and values, or a state, of its own."""

    def __init__(self, forward: _Forward, attention_mask: Tensor | None):
        """attention_mask: None where all rows are of one length."""
        self.forward, self.mask, self.width = forward, attention_mask, 1

    def step(self, tokens: Tensor, parents: Tensor) -> Tensor:
        examples, width = tokens.shape
        if width > 1:
            self._rows(
                (
                    torch.arange(examples, device=tokens.device).unsqueeze(1) * self.width + parents
                ).flatten()
            )
        self.width, positions = width, None
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], -1)
            positions = self.mask.sum(-1, keepdim=True) - 1
        return (
            self.forward(tokens.reshape(-1, 1), self.mask, positions, 1)
            .unflatten(0, (examples, width))
            .squeeze(2)
        )

    def keep(self, examples: Tensor) -> None:
        beams = torch.arange(self.width, device=examples.device)
        self._rows((examples.unsqueeze(1) * self.width + beams).flatten())

    def _rows(self, rows: Tensor) -> None:
        self.forward.cache.reorder_cache(rows)
        self.mask = None if self.mask is None else self.mask[rows]


class WholePast:
    """The texts themselves, of one length: every step reads all of them from their beginning."""

    def __init__(self, model: nn.Module, input_ids: Tensor):
        self.model, self.prompt = model, input_ids.shape[1]
        self.texts = input_ids.unsqueeze(1)  # (examples, beams, length)

    def step(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """As `SharedPast.step`."""
        texts = torch.take_along_dim(self.texts, parents.unsqueeze(-1), 1)
        self.texts = torch.cat([texts, tokens.unsqueeze(-1)], -1)
        return self.logits(tokens.shape[1])

    def logits(self, width: int) -> Tensor:
        """(examples, width, vocabulary), of the token that comes next."""
        return (
            plain_logits(self.model, self.texts.flatten(0, 1), self.prompt, 1)
            .unflatten(0, (-1, width))
            .squeeze(2)
        )

    def keep(self, examples: Tensor) -> None:
        """Forget all other examples."""
        self.texts = self.texts[examples]


Past = SharedPast | CopiedPast | WholePast
