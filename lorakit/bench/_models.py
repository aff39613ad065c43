"""The same base model several times over: bare, with lorakit's method, with PEFT's, with loralib's.

Weights are random, of the recipe's shape: time does not depend on their values.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from lorakit.bases.base import DTYPES
from lorakit.bases.outline import random_base
from lorakit.bench._base import Setting
from lorakit.fast import fast_training, make_fast
from lorakit.models import family_of
from lorakit.nn.linear import is_conv1d
from lorakit.recipe.schema import Recipe


def trained_models(recipe: Recipe, setting: Setting) -> dict[str, nn.Module]:
    """way -> model in training mode, with the recipe's r and targets (query and value for the others).

    limit: the bare model with gradients through its activations, which is what any adapter must pay; limit_fast: the
    same with lorakit's attention and dropout. The setting's dropout is the model's and the adapter's.
    """
    dropout = setting.dropout
    base = bare(recipe, setting.layers, dropout).to(setting.device, DTYPES[setting.precision])
    builders: dict[str, Callable[[nn.Module], nn.Module]] = {
        "limit": _limit,
        "limit_fast": lambda model: _limit(fast(model)),
        "lorakit": lambda model: _lorakit(fast(model), recipe, dropout),
    }
    peers = {"peft": with_peft, "loralib": _loralib}
    r, alpha = (
        int(getattr(recipe.method, name, default)) for name, default in (("r", 8), ("alpha", 16))
    )
    for name in setting.against:
        builders[name] = lambda model, build=peers[name]: build(model, r, alpha, dropout)
    return {name: build(copy.deepcopy(base)).train() for name, build in builders.items()}


@contextmanager
def as_trained(models: Mapping[str, nn.Module]) -> Iterator[None]:
    """Inside, frozen weights are laid out where a run would have them so."""
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(fast_training(model))
        yield


def bare(recipe: Recipe, layers: int | None, dropout: float) -> Any:
    """The recipe's base, frozen, with random weights."""
    base = random_base(*recipe.base(), layers, dropout)
    for parameter in base.parameters():
        parameter.requires_grad_(False)
    return base


def _head_trains(model: Any) -> None:
    head = getattr(model, "classifier", None) or getattr(model, "score", None)
    for parameter in head.parameters() if isinstance(head, nn.Module) else ():
        parameter.requires_grad_(True)


def _limit(model: Any) -> nn.Module:
    """Gradients flow down to the first layer's query and value biases, where an adapter would be, and no further."""
    _head_trains(model)
    for bias in _first_biases(model):
        bias.requires_grad_(True)
    return model


def _first_biases(model: Any) -> list[nn.Parameter]:
    sites = _sites(model)
    first = sites[0].path.rsplit(".", 1)[0]
    found = {id(s.module): s.module.bias for s in sites if s.path.startswith(f"{first}.")}
    if any(
        bias is None for bias in found.values()
    ):  # the Llama shape has none: the norm in front of the projections
        block: Any = model.get_submodule(first.rsplit(".", 1)[0])
        return [next(p for n, p in block.named_parameters() if "norm" in n)]
    return list(found.values())


def fast(model: Any) -> Any:
    """The model with lorakit's attention and dropout, as it is trained."""
    family = family_of(model.config.model_type)
    make_fast(model, None if family is None else family.reads_first)
    return model


def _lorakit(model: Any, recipe: Recipe, dropout: float) -> nn.Module:
    family = family_of(model.config.model_type)
    assert family is not None
    method: Any = recipe.method
    if "dropout" in type(method).model_fields:
        method = method.model_copy(update={"dropout": dropout})
    attachment = method.attach(model, family.places(model.config))
    _head_trains(attachment.model)
    return attachment.model


def with_peft(model: Any, r: int, alpha: int, dropout: float) -> nn.Module:
    """PEFT's LoRA on query and value (of a fused weight, on all of it)."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM" if _is_causal(model) else "SEQ_CLS",
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=sorted({site.path.rsplit(".", 1)[1] for site in _sites(model)}),
        fan_in_fan_out=any(is_conv1d(module) for module in model.modules()),
    )
    return get_peft_model(model, config)  # type: ignore[return-value]


def _loralib(model: Any, r: int, alpha: int, dropout: float) -> nn.Module:
    import loralib

    sites = _sites(model)
    for path, module in {s.path: s.module for s in sites}.items():
        out, in_ = (module.nf, module.weight.shape[0]) if is_conv1d(module) else module.weight.shape  # type: ignore[union-attr]
        if is_conv1d(module):
            new: Any = loralib.MergedLinear(
                in_,
                out,
                r=r,
                lora_alpha=alpha,
                lora_dropout=dropout,
                enable_lora=[True, False, True],
                fan_in_fan_out=True,
            )
        else:
            new = loralib.Linear(
                in_, out, r=r, lora_alpha=alpha, lora_dropout=dropout, bias=module.bias is not None
            )
        new.to(module.weight.dtype).load_state_dict(module.state_dict(), strict=False)  # type: ignore[union-attr]
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, new)
    loralib.mark_only_lora_as_trainable(model)
    _head_trains(model)
    return model


def _sites(model: Any) -> list[Any]:
    from lorakit.nn.select import select

    family = family_of(model.config.model_type)
    assert family is not None
    return select(model, ["query", "value"], family.places(model.config))


def _is_causal(model: Any) -> bool:
    return model.get_output_embeddings() is not None
