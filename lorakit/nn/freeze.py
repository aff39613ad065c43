"""Who trains."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn


def train_only(model: nn.Module, names: Collection[str]) -> None:
    """Exactly the parameters `names` train; they become float32 masters, whatever the dtype of the rest."""
    chosen = {
        id(p) for name, p in model.named_parameters() if name in names
    }  # a tied one has several names
    for module in model.modules():
        promoted = False
        for parameter in [p for p in module._parameters.values() if p is not None]:
            trains = id(parameter) in chosen
            parameter.requires_grad_(trains)
            if trains and parameter.dtype in (torch.float16, torch.bfloat16):
                parameter.data = parameter.data.float()
                promoted = True
        if promoted:
            # its neighbours stay in half precision, and hand it half precision
            module.register_forward_pre_hook(_float_inputs)


def _float_inputs(_module: nn.Module, inputs: tuple) -> tuple:
    return tuple(
        x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs
    )


def tied(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """The parameters that stand in the model under more than one name, with all of them."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return {parameter: found for parameter, found in names.items() if len(found) > 1}


def count(model: nn.Module, names: Collection[str]) -> int:
    """Numbers in the parameters `names`."""
    return sum(p.numel() for name, p in model.named_parameters() if name in names)


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a DTensor, which must be asked for on every process; a plain tensor is whole."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # type: ignore[operator]


def part_like(parameter: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """The inverse: spread over processes as `parameter` is, where it is a DTensor; asked for on every process."""
    if not hasattr(parameter, "full_tensor"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, parameter.device_mesh, parameter.placements)  # type: ignore[attr-defined]
