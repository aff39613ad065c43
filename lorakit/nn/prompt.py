"""Tokens of a method's own in every row that a decoder reads: some in front, some where its prompt ends.

The body of the model reads longer rows, (prefix, prompt, infix, answer), and gives hidden states of the row as it was:
what the last token of the prompt gives is what the last token of the infix gave. So whatever stands around the body
(the output layer, labels, a head that reads the last token, the loss) sees no difference. With a cache the tokens are
read once, with the prompt; what keeps the books of the cache asks `added_tokens`.

Where a prompt ends, the row does not say: `prompt_ends` gives the batch a field for it, which the model takes off
again. Without that field a row is all prompt.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from lorakit.errors import ModelError

ENDS = "prompt_ends"


class Prompt:
    """On the model from when it is made. body: the module of it that has the embeddings and the blocks; before, after:
    how many tokens stand in front of the prompt, and behind it."""

    def __init__(self, model: nn.Module, body: nn.Module, before: int, after: int):
        self.before, self.after, self.active = before, after, True
        self.fields = list(inspect.signature(type(body).forward).parameters)[1:]
        self.ends: Tensor | None = None
        self.places: Tensor | None = None
        """(batch, before + after), where the tokens stand in the rows that are read now; None: they are not in them."""
        self.back: Tensor | None = None
        self.handles = [
            model.register_forward_pre_hook(self._take_ends, with_kwargs=True),
            body.register_forward_pre_hook(self._lengthen, with_kwargs=True),
            body.register_forward_hook(self._shorten),
        ]

    def remove(self) -> None:
        """Take it off the model, which then reads rows as they are."""
        for handle in self.handles:
            handle.remove()

    def _take_ends(
        self, _model: nn.Module, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        self.ends = kwargs.pop(ENDS, None)
        return args, kwargs

    def _lengthen(
        self, _body: nn.Module, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        given = {
            **dict(zip(self.fields, args, strict=False)),
            **kwargs,
        }  # by name: transformers adds some itself
        ids, mask, cache = (
            given.get(name) for name in ("input_ids", "attention_mask", "past_key_values")
        )
        self.places = self.back = None
        read = 0 if cache is None else cache.get_seq_length()
        if not self.active:
            return args, kwargs
        if ids is None:
            raise ModelError("a model with a prefix reads input_ids, and not inputs_embeds")
        if read > 0:
            _refuse_other_books(mask, given.get("position_ids"), read + ids.shape[1])
            return args, kwargs
        mask = torch.ones_like(ids) if mask is None else mask
        row, self.places, self.back = self._laid_out(mask)
        self.ends = None
        wide = ids.new_zeros(len(ids), ids.shape[1] + self.before + self.after)
        given["input_ids"] = wide.scatter(1, row, ids)  # whatever token: its embedding is replaced
        given["attention_mask"] = mask.new_ones(wide.shape).scatter(1, row, mask)
        if "position_ids" in self.fields:
            given["position_ids"] = (given["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        return (), given

    def _laid_out(self, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where a row's own tokens go, where the method's stand, and which hidden state each of its own gets back."""
        n = torch.arange(mask.shape[1], device=mask.device)
        first = mask.int().argmax(1, keepdim=True)
        last = mask.shape[1] - mask.flip(1).int().argmax(1, keepdim=True)
        ends = last if self.ends is None else self.ends[:, None].to(mask.device)
        row = n + self.before * (n >= first) + self.after * (n >= ends)
        before, after = (
            torch.arange(count, device=mask.device) for count in (self.before, self.after)
        )
        places = torch.cat([first + before, ends + self.before + after], 1)
        return row, places, row + self.after * (n == ends - 1)

    def _shorten(self, _body: nn.Module, _args: tuple, outputs: Any) -> Any:
        if self.back is None:
            return outputs
        hidden, back, self.back = outputs[0], self.back[..., None], None
        hidden = hidden.gather(1, back.expand(-1, -1, hidden.shape[-1]))
        if isinstance(outputs, tuple):
            return (hidden, *outputs[1:])
        outputs["last_hidden_state"] = hidden
        return outputs

    def put(self, vectors: Tensor, y: Tensor) -> Tensor:
        """y: (batch, length, d), of rows as read now; `vectors` (before + after, d) take the places in it."""
        if self.places is None:
            return y
        index = self.places[..., None].expand(-1, -1, y.shape[-1])
        return y.scatter(1, index, vectors.to(y.dtype).expand(len(y), -1, -1))


def _refuse_other_books(mask: Tensor | None, positions: Tensor | None, length: int) -> None:
    """ModelError: whoever holds the cache has not counted the method's tokens."""
    # transformers leaves a mask out that hides nothing
    by_positions = length if positions is None or mask is not None else int(positions.max()) + 1
    known = by_positions if mask is None else mask.shape[-1]
    if known != length:
        raise ModelError(
            f"the cache holds {length} tokens, those of the method among them, and its user knows of {known}: "
            "transformers' own `generate` cannot be used with a prefix; `lorakit.evaluation.decode.decode` can"
        )


def added_tokens(model: Any) -> int:
    """How many tokens of a method's own the model reads with each row now."""
    prompt = _prompt_of(model)
    return prompt.before + prompt.after if prompt is not None and prompt.active else 0


def prompt_ends(model: Any, ends: Tensor) -> dict[str, Tensor]:
    """The field for a batch: ends (batch,), the first position of each row after its prompt, on any device. Empty where
    the model has no use for it."""
    return {} if _prompt_of(model) is None else {ENDS: ends}


def _prompt_of(model: Any) -> Prompt | None:
    hooks = getattr(model, "module", model)._forward_pre_hooks.values()
    return next(
        (own for hook in hooks if isinstance(own := getattr(hook, "__self__", None), Prompt)), None
    )
