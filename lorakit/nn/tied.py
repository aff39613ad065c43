"""Tied weights: an embedding that is the output layer too, and how to untie it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from torch import nn

from lorakit.errors import ModelError
from lorakit.nn.freeze import tied
from lorakit.nn.settings import text_config


def untie(model: Any, names: Collection[str]) -> Callable[[], None]:
    """Give the output layer a copy of its weight if one of `names` is tied.

    Returns the function that ties it again. ModelError: it is tied to more than the embedding and
    the output layer.
    """
    if not names:
        return lambda: None
    shared = [found for found in tied(model).values() if set(names) & set(found)]
    if not shared:
        return lambda: None
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    paths = {f"{path}.weight" for path, module in model.named_modules() if module in layers}
    if len(shared) > 1 or set(shared[0]) != paths:
        raise ModelError(f"{', '.join(shared[0])} are one weight, which cannot be taken apart here")
    output, before = layers[1], layers[1].weight
    configs = [model.config, text_config(model.config)]
    flags = [(config, config.tie_word_embeddings) for config in configs]
    output.weight = nn.Parameter(before.detach().clone(), requires_grad=before.requires_grad)
    for config in configs:
        config.tie_word_embeddings = False

    def tie() -> None:
        output.weight = before
        for config, flag in flags:
            config.tie_word_embeddings = flag

    return tie
