"""A base whose numbers are not numbers is refused before anything is computed with it."""

from __future__ import annotations

from torch import Tensor, nn

from lorakit.errors import ModelError
from lorakit.models._base import Model
from lorakit.models._files import opened, weight_files
from lorakit.nn.finite import is_finite


def refuse_not_finite(model: nn.Module, spec: Model) -> None:
    """ModelError for a parameter that holds NaN or infinity, by name."""
    stored = "" if spec.dtype == "fp32" else f" in {spec.dtype}"
    for name, parameter in model.named_parameters():
        refuse_tensor(name, parameter, spec.name, stored)


def refuse_files_not_finite(spec: Model) -> None:
    """As `refuse_not_finite`, before the weights are quantized: of a packed one it cannot be told."""
    for file in weight_files(spec):
        with opened(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                refuse_tensor(name, tensors.get_tensor(name), str(file))


def refuse_tensor(name: str, tensor: Tensor, where: str, stored: str = "") -> None:
    """ModelError where it holds NaN or infinity. where: what it was read from. stored: the dtype, in words."""
    if not is_finite(tensor):
        raise ModelError(
            f"{where}: {name} holds numbers that are not finite{stored} (NaN or infinity), so nothing can be computed "
            "with this base. Download it again, or give another"
            + (" model.dtype." if stored else ".")
        )


def refuse_merged(name: str, tensor: Tensor) -> None:
    """ModelError where a merged weight, in the dtype that is written, holds NaN or infinity."""
    if not is_finite(tensor):
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise ModelError(
            f"merged, {name} holds numbers that {dtype} does not have; write it with --dtype bf16 or fp32. If "
            "it is the same there, the adapter's numbers are too large for any use"
        )
