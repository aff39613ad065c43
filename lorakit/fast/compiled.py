"""torch.compile for each of a model's layers while it trains (`train.compile: layers`).

Equal layers share their graphs, in which lengths and batch sizes are symbols. So a run of any
depth, with batches of any length, needs a handful of graphs. The model as one graph would be
compiled again for whatever differs between steps (the loss reads some positions only). What is
outside the layers, evaluation and generation are not compiled.

Gain: none on a CPU, where it was tested, and not measured on a GPU; so it is off by default and
has a switch of its own. Plain reference: the layers that are not compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn

from lorakit.errors import ModelError

BACKEND = "inductor"


@contextmanager
def compiled_layers(model: nn.Module) -> Iterator[None]:
    """Inside, the model's layers are compiled, each when it first runs.

    ModelError: the model has no list of layers, or they cannot be compiled on this machine (on a
    CPU that takes a C++ compiler).
    """
    from torch._dynamo.exc import TorchDynamoException

    layers = list(_layers(model))
    if not layers:
        raise ModelError(f"train.compile: {type(model).__name__} has no list of layers")
    for layer in layers:
        layer.compile(backend=BACKEND, dynamic=True)
    try:
        yield
    except TorchDynamoException as error:
        # the first paragraph says what failed; advice on torch's logs follows
        what = " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
        raise ModelError(
            f"train.compile: {type(layers[0]).__name__} was not compiled: {what}"
        ) from error
    finally:
        for layer in layers:
            layer._compiled_call_impl = None  # torch has no public way to undo `compile`


def as_written() -> AbstractContextManager[None]:
    """Inside, nothing compiled is used."""
    return torch.compiler.set_stance("force_eager")  # type: ignore[return-value]


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost lists: a model's blocks, and not the experts within one."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _layers(child)
