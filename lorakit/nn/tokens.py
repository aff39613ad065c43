"""New tokens: their rows of the embeddings, and of the output layer, are trained, and no other row is.

The rows are a parameter of their own beside the frozen matrix (`...wte.new.rows`), put in the place of the matrix's
rows as the embedding and the output layer are computed; tied layers share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

CHILD = "new"
END = f".{CHILD}.rows"
"""How the name of such a parameter ends."""


class NewRows(nn.Module):
    """Rows of the tokens `ids`, which ascend: (tokens, width), float32. scale: of the embedding, for every row."""

    ids: Tensor

    def __init__(self, rows: Tensor, ids: Sequence[int], scale: float = 1.0):
        super().__init__()
        self.rows = nn.Parameter(rows.detach().float().clone())
        self.register_buffer("ids", torch.tensor(ids, device=rows.device), persistent=False)
        self.scale = scale

    def embed(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Forward hook of the embedding."""
        place = torch.searchsorted(self.ids, inputs[0]).clamp(max=len(self.ids) - 1)
        own = (self.rows * self.scale).to(output.dtype)[place]
        return torch.where((self.ids[place] == inputs[0]).unsqueeze(-1), own, output)

    def predict(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Forward hook of the output layer: logits of the new tokens, by their rows."""
        logits = inputs[0] @ self.rows.to(inputs[0].dtype).T
        return output.index_copy(-1, self.ids, logits.to(output.dtype))


def add_rows(model: Any, ids: Sequence[int]) -> set[str]:
    """Give the model trained rows for the tokens `ids`, ascending; they begin as the mean of the rows before the first.

    Returns the names of the new parameters. The matrices are made longer where they do not reach.
    """
    embedding = model.get_input_embeddings()
    if ids[-1] >= embedding.weight.shape[0]:
        model.resize_token_embeddings(ids[-1] + 1, mean_resizing=False)
        embedding = model.get_input_embeddings()
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is embedding.weight
    rows = _begin(embedding.weight, ids)
    shared = NewRows(rows, ids, float(getattr(embedding, "scalar_embed_scale", 1.0)))
    embedding.add_module(CHILD, shared)
    embedding.register_forward_hook(shared.embed)
    if head is not None:
        own = shared if tied else NewRows(_begin(head.weight, ids), ids)
        if not tied:
            head.add_module(CHILD, own)
        head.register_forward_hook(own.predict)
    return {name for name, _ in model.named_parameters() if name.endswith(END)}


@torch.no_grad()
def _begin(weight: Tensor, ids: Sequence[int]) -> Tensor:
    """The rows to start from; what stands in the matrix at their places is set to it, so it is the same every time."""
    mean = weight[: ids[0]].float().mean(0)
    weight[list(ids)] = mean.to(weight.dtype)
    return mean.expand(len(ids), -1)


@torch.no_grad()
def fold_rows(model: Any) -> None:
    """Write the rows into the matrices for good: afterwards the model is a plain one."""
    layers = [
        layer
        for layer in (model.get_input_embeddings(), model.get_output_embeddings())
        if layer is not None
    ]
    for layer in layers:
        for key, hook in list(layer._forward_hooks.items()):
            new = getattr(hook, "__self__", None)
            if isinstance(new, NewRows):
                layer.weight[new.ids] = new.rows.to(layer.weight.dtype)
                del layer._forward_hooks[key]
    for layer in layers:
        if hasattr(layer, CHILD):
            delattr(layer, CHILD)


def rows_of(model: nn.Module) -> dict[str, list[int]]:
    """Path of each layer that has new rows -> its tokens."""
    return {
        name.removesuffix(f".{CHILD}"): module.ids.tolist()
        for name, module in model.named_modules()
        if isinstance(module, NewRows)
    }
