"""Vectors that a small network gives: a prompt encoder."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lorakit.methods.prompt._prompt import NewInputs, PromptAttachment
from lorakit.nn.prompt import Prompt


class EncodedInputs(NewInputs):
    """`head(embedding)` (tokens, d) replace the embeddings of the added tokens.

    like: a tensor (tokens, d) with the device, and a dtype that is float32 or more precise.
    """

    def __init__(self, like: Tensor, prompt: Prompt, method: Any):
        super().__init__(like, prompt)
        count, width = like.shape
        kind = {"device": like.device, "dtype": self.vectors.dtype}
        del self.vectors
        hidden = method.hidden or width
        self.embedding = nn.Parameter(torch.empty(count, width, **kind))
        if not like.is_meta:
            nn.init.normal_(self.embedding)
        self.lstm_head: nn.LSTM | None = None
        if method.encoder == "lstm":
            self.lstm_head = nn.LSTM(
                width,
                hidden,
                num_layers=method.layers,
                dropout=method.dropout,
                bidirectional=True,
                batch_first=True,
                **kind,
            )
            sizes = [2 * hidden, 2 * hidden, width]
        else:
            sizes = [width, hidden, hidden, width]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after, **kind), nn.ReLU()]
        self.mlp_head = nn.Sequential(*layers[:-1])
        if not like.is_meta:
            self.start = self.current().detach().cpu().clone()

    def current(self) -> Tensor:
        x = self.embedding
        if self.lstm_head is not None:
            x = self.lstm_head(x[None])[0][0]
        return self.mlp_head(x)


class EncodedAttachment(PromptAttachment):
    """A network that gives the embeddings; the base is frozen."""

    def _part(self, start: Tensor) -> NewInputs:
        return EncodedInputs(start, self.prompt, self.method)
