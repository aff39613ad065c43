"""New tokens: of the embeddings and the output layer only their rows train.

The rows are a separate parameter (`...wte.new.rows`), which replaces the frozen matrix's rows when
the embedding and the output layer are computed. Tied layers share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

CHILD = "new"
END = f".{CHILD}.rows"
"""The end of the parameter's name."""


class NewRows(nn.Module):
    """Rows (tokens, width), float32 or float64, of the tokens `ids`, ascending.

    scale: the factor that the embedding layer applies to every row.
    """

    ids: Tensor

    def __init__(self, rows: Tensor, ids: Sequence[int], scale: float = 1.0):
        super().__init__()
        wide = torch.promote_types(rows.dtype, torch.float32)
        self.rows = nn.Parameter(rows.detach().to(wide).clone())
        self.register_buffer("ids", torch.tensor(ids, device=rows.device), persistent=False)
        self.scale = scale

    def embed(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Forward hook of the embedding."""
        place = torch.searchsorted(self.ids, inputs[0]).clamp(max=len(self.ids) - 1)
        own = (self.rows * self.scale).to(output.dtype)[place]
        return torch.where((self.ids[place] == inputs[0]).unsqueeze(-1), own, output)

    def predict(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Forward hook of the output layer: logits of the new tokens from their rows."""
        logits = inputs[0] @ self.rows.to(inputs[0].dtype).T
        bias = getattr(_module, "bias", None)
        if bias is not None:
            logits = logits + bias[self.ids].to(logits.dtype)
        return output.index_copy(-1, self.ids, logits.to(output.dtype))


def add_rows(model: Any, ids: Sequence[int]) -> set[str]:
    """Give the model trained rows for the tokens `ids`, ascending; each starts as the mean of the
    rows before the first of them.

    Returns the names of the new parameters. Matrices that are too short are made longer.
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


def train_rows(model: Any, layers: Mapping[str, Sequence[int]]) -> set[str]:
    """Give layers trained rows for tokens that the model has, each of which starts as it is.

    layers: path of an embedding or of the output layer -> its tokens, ascending. The other one
    shares the rows if the two are tied. Returns the names of the new parameters.
    """
    embedding = model.get_input_embeddings()
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is embedding.weight
    for path, ids in layers.items():
        layer = model.get_submodule(path)
        scale = 1.0 if layer is head else float(getattr(layer, "scalar_embed_scale", 1.0))
        rows = NewRows(layer.weight[list(ids)], ids, scale)
        layer.add_module(CHILD, rows)
        if layer is not head:
            layer.register_forward_hook(rows.embed)
        if head is not None and (layer is head or (tied and layer is embedding)):
            head.register_forward_hook(rows.predict)
    return {f"{path}{END}" for path in layers}


@torch.no_grad()
def _begin(weight: Tensor, ids: Sequence[int]) -> Tensor:
    """The starting rows, also written into the matrix, so that it is the same every time."""
    mean = weight[: ids[0]].float().mean(0)
    weight[list(ids)] = mean.to(weight.dtype)
    return mean.expand(len(ids), -1)


@torch.no_grad()
def fold_rows(model: Any) -> None:
    """Write the rows into the matrices for good: afterwards the model is a plain one."""
    both = (model.get_input_embeddings(), model.get_output_embeddings())
    layers = [layer for layer in both if layer is not None]
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
    """Path of each layer with new rows -> their tokens."""
    return {
        name.removesuffix(f".{CHILD}"): module.ids.tolist()
        for name, module in model.named_modules()
        if isinstance(module, NewRows)
    }
