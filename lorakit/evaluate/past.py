"""What a causal model has read: keys and values of the prompt and of every beam, and the logits that come next."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

TIDY = 8
"""Steps of a beam search between two times that tokens which no beam goes back to are dropped."""


def read(model: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> tuple[SharedPast | CopiedPast, Tensor]:
    """Each prompt, (examples, length) with padding on the left, once; and the logits (examples, 1, vocabulary)."""
    cache: Cache = DynamicCache(config=model.config)  # type: ignore[arg-type]
    shared = _sees_by_mask(model, cache)
    forward = _Forward(model, Cache(layer_class_to_replicate=_Roomy) if shared else cache)
    logits = forward(input_ids, attention_mask, (attention_mask.cumsum(-1) - 1).clamp(min=0), 1)
    return (SharedPast if shared else CopiedPast)(forward, attention_mask), logits


def _sees_by_mask(model: nn.Module, cache: Any) -> bool:
    """Whether a mask and positions alone decide what a token sees: not with ALiBi, a window, or a state."""
    config: Any = model.config
    return (
        getattr(model, "_supports_attention_backend", False)  # transformers' word for: attention as all others have it
        and config._attn_implementation in ("eager", "sdpa")
        and "position_ids" in inspect.signature(type(model).forward).parameters
        and not any(layer.is_sliding or getattr(layer, "is_linear", False) for layer in cache.layers)
    )


class _Forward:
    """The model and its cache; fields that its forward pass does not know are left out."""

    def __init__(self, model: nn.Module, cache: Any):
        self.model, self.cache = model, cache
        self.known = inspect.signature(type(model).forward).parameters.keys()

    def __call__(self, tokens: Tensor, mask: Tensor, positions: Tensor, last: int) -> Tensor:
        """Logits of the `last` tokens of each row."""
        optional = {"position_ids": positions, "logits_to_keep": last}
        fields = {name: value for name, value in optional.items() if name in self.known}
        outputs = self.model(
            input_ids=tokens, attention_mask=mask, past_key_values=self.cache, use_cache=True, **fields
        )
        return outputs.logits[:, -last:]


class _Roomy(DynamicLayer):
    """Keys and values with room for some steps: a step writes its own, where DynamicLayer copies all there are."""

    keys: Any
    values: Any
    room: tuple[Any, ...]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self._hold(key_states, value_states)
            return self.keys, self.values
        n, new = self.keys.shape[-2], key_states.shape[-2]
        if n + new > self.room[0].shape[-2]:
            self.room = tuple(_longer(states, n + TIDY * new) for states in (self.keys, self.values))
        self.keys, self.values = (whole[..., : n + new, :] for whole in self.room)
        self.keys[..., n:, :], self.values[..., n:, :] = key_states, value_states
        return self.keys, self.values

    def select(self, slots: Tensor) -> None:
        """slots: (examples, n), the tokens to keep of each example."""
        index = slots[:, None, :, None]
        self._hold(torch.take_along_dim(self.keys, index, 2), torch.take_along_dim(self.values, index, 2))

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._hold(self.keys[beam_idx], self.values[beam_idx])

    def _hold(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = self.room = keys, values


def _longer(states: Tensor, length: int) -> Tensor:
    rows, heads, n, size = states.shape
    whole = states.new_empty(rows, heads, length, size)
    whole[..., :n, :] = states
    return whole


class SharedPast:
    """All beams of an example are one row, and every token in it is kept once; a mask says who sees whom.

    The prompt is not copied per beam, and when the search drops a beam and forks another, only rows of the mask move.
    Every few steps the tokens that no beam goes back to are dropped.
    """

    def __init__(self, forward: _Forward, attention_mask: Tensor):
        self.forward, self.positions, self.steps = forward, attention_mask.sum(-1, keepdim=True), 0
        self.hidden = torch.finfo(forward.model.dtype).min  # type: ignore[arg-type]
        seen = torch.zeros_like(attention_mask, dtype=forward.model.dtype)  # type: ignore[arg-type]
        self.mask = seen.masked_fill_(attention_mask == 0, self.hidden).unsqueeze(1)  # (examples, beams, keys)

    def step(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """tokens, parents: (examples, beams), what each beam writes and the earlier beam that it goes on from."""
        width = tokens.shape[1]
        self.steps += 1
        if width > 1 and self.steps % TIDY == 0:
            self._drop_unseen()
        own = torch.full((width, width), self.hidden, dtype=self.mask.dtype, device=self.mask.device).fill_diagonal_(0)
        inherited = torch.take_along_dim(self.mask, parents.unsqueeze(-1), 1)
        self.mask = torch.cat([inherited, own.expand(len(tokens), -1, -1)], -1)
        logits = self.forward(tokens, self.mask.unsqueeze(1), self.positions.expand_as(tokens), width)
        self.positions = self.positions + 1
        return logits

    def keep(self, examples: Tensor) -> None:
        """Forget all other examples."""
        self.forward.cache.reorder_cache(examples)
        self.mask, self.positions = self.mask[examples], self.positions[examples]

    def _drop_unseen(self) -> None:
        seen = (self.mask == 0).any(1)  # (examples, keys)
        slots = seen.byte().topk(int(seen.sum(-1).max()))[1]  # no matter in which order: positions are in the keys
        self.mask = torch.take_along_dim(self.mask, slots.unsqueeze(1), -1)
        for layer in self.forward.cache.layers:
            layer.select(slots)


class CopiedPast:
    """A row per beam, with keys and values of its own: what every model can do."""

    def __init__(self, forward: _Forward, attention_mask: Tensor):
        self.forward, self.mask, self.width = forward, attention_mask, 1

    def step(self, tokens: Tensor, parents: Tensor) -> Tensor:
        examples, width = tokens.shape
        if width > 1:
            self._rows((torch.arange(examples, device=tokens.device).unsqueeze(1) * self.width + parents).flatten())
        self.width = width
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], -1)
        positions = self.mask.sum(-1, keepdim=True) - 1
        return self.forward(tokens.reshape(-1, 1), self.mask, positions, 1).unflatten(0, (examples, width)).squeeze(2)

    def keep(self, examples: Tensor) -> None:
        beams = torch.arange(self.width, device=examples.device)
        self._rows((examples.unsqueeze(1) * self.width + beams).flatten())

    def _rows(self, rows: Tensor) -> None:
        self.forward.cache.reorder_cache(rows)
        self.mask = self.mask[rows]
