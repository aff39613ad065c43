"""torch.compile of a model's layers, each on its own, while it trains.

Layers that are alike share their graphs, and lengths and batch sizes are symbols in them: a run of any depth and with
batches of any length needs a handful, where the whole model would be compiled anew for what differs from step to step
(the loss reads some positions only). What is outside the layers, evaluation and generation stay as they are.
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
    """Inside, the model's layers are compiled, each when it first runs. ModelError: it has no list of layers, or they
    cannot be compiled here (on a CPU that takes a C++ compiler)."""
    from torch._dynamo.exc import TorchDynamoException

    layers = list(_layers(model))
    if not layers:
        raise ModelError(f"train.compile: {type(model).__name__} has no list of layers")
    for layer in layers:
        layer.compile(backend=BACKEND, dynamic=True)
    try:
        yield
    except TorchDynamoException as error:
        what = (
            " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
        )  # advice on torch's logs follows
        raise ModelError(
            f"train.compile: {type(layers[0]).__name__} was not compiled: {what}"
        ) from error
    finally:
        for layer in layers:
            layer._compiled_call_impl = None  # torch has no public way back


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
