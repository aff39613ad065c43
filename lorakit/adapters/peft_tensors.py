"""LoRA's A and B to and from the tensors of PEFT's format.

PEFT has one A and one B per module. A fused weight of which only some rows are adapted (q and v of
GPT-2's c_attn) is converted exactly, by stacking the ranks of its parts:

    A' = [A_q ; A_v]  (2r, in)        B' = [B_q 0 ; 0 0 ; 0 B_v]  (out, 2r)
    r' = 2r,  alpha' = 2 alpha

This has the same dW and the same scale alpha'/r' = alpha/r. Further training in PEFT fills the zero
blocks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from lorakit.errors import AdapterError
from lorakit.methods.reparam.lora import LoRAAttachment
from lorakit.nn import tokens
from lorakit.nn.linear import features
from lorakit.nn.select import Site

PREFIX = "base_model.model."
"""Before the names of PEFT's tensors."""
_TOKEN_ROWS = ".token_adapter.trainable_tokens_delta"
"""PEFT's end of the name for the rows of new tokens."""


def tensors_of(attachment: LoRAAttachment) -> dict[str, Tensor]:
    """The attachment as PEFT's tensors, on the CPU.

    lora_A (r, in) and lora_B (out, r) per module, and the newly initialised parameters. Tensors
    that are on the CPU already are not copied.
    """
    tensors = {}
    for path, sites in by_module(attachment.sites).items():
        a, b = _stack(attachment, sites)
        tensors[_a_name(path)] = a
        tensors[_b_name(path)] = b
    for name in sorted(attachment.newly_initialised):
        tensors[name_in_file(name)] = attachment.model.get_parameter(name).detach().cpu()
    return tensors


def state_of(attachment: LoRAAttachment, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """PEFT's tensors under the names that `attachment.load_state` takes.

    Tensors that belong to nothing keep their names, and `load_state` refuses them. AdapterError: a
    module's tensors are absent or have another shape.
    """
    left = dict(tensors)
    state: dict[str, Tensor] = {}
    for path, sites in by_module(attachment.sites).items():
        if _a_name(path) not in left or _b_name(path) not in left:
            raise AdapterError(f"the adapter does not hold lora_A and lora_B for {path}")
        a = left.pop(_a_name(path))
        b = left.pop(_b_name(path))
        state |= _unstack(attachment, sites, a, b)
    for name in attachment.newly_initialised:
        if name_in_file(name) in left:
            state[name] = left.pop(name_in_file(name))
    return state | {key.removeprefix(PREFIX): value for key, value in left.items()}


def name_in_file(name: str) -> str:
    """PEFT's name for a parameter that is saved as it is (modules_to_save, rows of new tokens)."""
    if name.endswith(tokens.END):
        name = name.removesuffix(tokens.END) + _TOKEN_ROWS
    return PREFIX + name


def plain_names(tensors: Iterable[str]) -> set[str]:
    """The parameters that an adapter holds as they are, by their names in the model."""
    return {key.removeprefix(PREFIX) for key in tensors if ".lora_" not in key}


def adapted_modules(tensors: Iterable[str]) -> list[str]:
    """Paths of the modules for which an adapter holds lora_A, sorted."""
    end = _a_name("").removeprefix(PREFIX)
    return sorted(key[len(PREFIX) : -len(end)] for key in tensors if key.endswith(end))


def rank_in_file(tensors: Mapping[str, Tensor], path: str) -> int:
    """The rank r of a module's lora_A (r, in)."""
    return tensors[_a_name(path)].shape[0]


def by_module(sites: Iterable[Site]) -> dict[str, list[Site]]:
    """Module path -> its sites, in their order."""
    grouped: dict[str, list[Site]] = defaultdict(list)
    for site in sites:
        grouped[site.path].append(site)
    return dict(grouped)


def rank_and_alpha(attachment: LoRAAttachment, sites: list[Site]) -> tuple[int, float]:
    """(r', alpha') of one module."""
    rank = sum(attachment.deltas[site.name].A.shape[0] for site in sites)
    return rank, _common_scale(attachment, sites) * rank


def _a_name(path: str) -> str:
    return f"{PREFIX}{path}.lora_A.weight"


def _b_name(path: str) -> str:
    return f"{PREFIX}{path}.lora_B.weight"


def _common_scale(attachment: LoRAAttachment, sites: list[Site]) -> float:
    """alpha/r of a module's parts if it is the same for all, else 1.

    In the second case each part's own scale is folded into its rows of B'.
    """
    scales = {attachment.deltas[site.name].scale for site in sites}
    return scales.pop() if len(scales) == 1 else 1.0


def _stack(attachment: LoRAAttachment, sites: list[Site]) -> tuple[Tensor, Tensor]:
    """(A' (r', in), B' (out, r')) of one module."""
    deltas = [attachment.deltas[site.name] for site in sites]
    if len(sites) == 1 and sites[0].rows is None:  # the common case, without a copy
        return deltas[0].A.detach().cpu(), deltas[0].B.detach().cpu()
    out = features(sites[0].module)[0]
    scale = _common_scale(attachment, sites)
    rank = sum(delta.A.shape[0] for delta in deltas)
    b = torch.zeros(out, rank, dtype=deltas[0].B.dtype)
    column = 0
    for site, delta in zip(sites, deltas, strict=True):
        r = delta.A.shape[0]
        b[site.index, column : column + r] = delta.B.detach().cpu() * (delta.scale / scale)
        column += r
    return torch.cat([delta.A.detach().cpu() for delta in deltas]), b


def _unstack(
    attachment: LoRAAttachment, sites: list[Site], a: Tensor, b: Tensor
) -> dict[str, Tensor]:
    """A and B of each part of one module. AdapterError: another shape, or B' outside the parts."""
    out = features(sites[0].module)[0]
    rank = sum(attachment.deltas[site.name].A.shape[0] for site in sites)
    if a.shape[0] != rank or b.shape != (out, rank):
        raise AdapterError(
            f"{sites[0].path}: the file has lora_A {tuple(a.shape)} and lora_B {tuple(b.shape)}, "
            f"this model takes rank {rank} and {out} rows"
        )
    state = {}
    used = torch.zeros_like(b, dtype=torch.bool)
    scale = _common_scale(attachment, sites)
    column = 0
    for site in sites:
        delta = attachment.deltas[site.name]
        r = delta.A.shape[0]
        state[f"{site.name}.A"] = a[column : column + r]
        state[f"{site.name}.B"] = b[site.index, column : column + r] / (delta.scale / scale)
        used[site.index, column : column + r] = True
        column += r
    # PEFT trains the zero blocks too: the file is then no longer a LoRA of the parts
    if bool(b[~used].any()):
        parts = ", ".join(site.part for site in sites)
        raise AdapterError(
            f"{sites[0].path}: lora_B is not zero outside the rows of {parts}; it was trained "
            "further elsewhere. Load it as an adapter of the entire module (remove lorakit's "
            "metadata)."
        )
    return state
