"""Checkpoints of the paper's reference code (loralib and microsoft/LoRA), a .bin or .pt each, as LoRA's tensors.

    Linear        lora_A (r, in)      lora_B (out, r)
    MergedLinear  lora_A (k r, in)    lora_B (k out', r)     k adapted parts below each other, each with its own pair

alpha is in none of these files. A file may hold the whole model besides; its weights then tell the base, and where they
were saved merged (loralib's `eval()`), also alpha: W - W0 = (alpha/r) B A.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorakit.adapters.odd import refuse_larger_inside, refuse_odd
from lorakit.errors import AdapterError, did_you_mean
from lorakit.methods.reparam.lora import LoRAAttachment
from lorakit.nn.linear import features, is_conv1d
from lorakit.nn.select import Site, row_numbers

log = logging.getLogger(__name__)

NESTED, PARALLEL = "model_state_dict", "module."
BUFFERS = (".attn.bias", ".attn.masked_bias", "position_ids")
"""Ends of names of what is no weight: masks and numbers that the model makes itself."""


def read(file: Path) -> dict[str, Tensor]:
    """Name -> tensor in float32, as the model calls it: not nested, and without DistributedDataParallel's prefix.

    Read with `weights_only`, so no code of the file is run. AdapterError: not to be read, or no mapping of tensors.
    """
    refuse_larger_inside(file)
    try:
        held: Any = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise AdapterError(f"cannot read {file}: {error.strerror or error}") from None
    except Exception as error:  # pickle's, zipfile's, RuntimeError and more, for a file that is cut or of another kind
        if asked := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise AdapterError(
                f"{file} asks for {asked[1]}, and that could run code, so it is not read. Save the state dict alone"
            ) from None
        raise AdapterError(
            f"{file} is no checkpoint of torch, or damaged; copy it again"
        ) from error
    held = held.get(NESTED, held) if isinstance(held, dict) else held
    if not isinstance(held, dict) or not held:
        raise AdapterError(f"{file} holds {type(held).__name__}, not a state dict (name -> tensor)")
    if odd := [
        key
        for key, value in held.items()
        if not isinstance(key, str) or not isinstance(value, Tensor)
    ]:
        raise AdapterError(
            f"{file}: {odd[0]!r} is no tensor; a state dict is expected, or one under {NESTED!r}"
        )
    if all(key.startswith(PARALLEL) for key in held):
        held = {key.removeprefix(PARALLEL): value for key, value in held.items()}
    for key, value in held.items():
        refuse_odd(value, f"{file}: {key}")
    tensors = {
        key: value.float() if value.is_floating_point() else value for key, value in held.items()
    }
    if broken := [
        key
        for key, value in tensors.items()
        if value.is_floating_point() and not value.isfinite().all()
    ]:
        raise AdapterError(f"{file} holds numbers that are not finite, in {broken[0]}")
    return tensors


def state_of(attachment: LoRAAttachment, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as the attachment's `load_state` takes them.

    AdapterError: no LoRA in it, another rank or shape, a head or a pair that is missing, weights of another base, or
    anything that is neither.
    """
    left = {_in_model(key, attachment.model): value for key, value in tensors.items()}
    if not any(key.endswith(".lora_A") for key in left):
        raise AdapterError(
            f"the checkpoint holds no lora_A (it has {', '.join(sorted(left)[:3])} ...): its LoRA was merged and left "
            "out, or it is no checkpoint of loralib. A merged model is no adapter"
        )
    grouped: dict[str, list[Site]] = {}
    for site in attachment.sites:
        grouped.setdefault(site.path, []).append(site)
    state: dict[str, Tensor] = {}
    for path, sites in grouped.items():
        state |= _pairs(attachment, path, sites, left)
    if missing := sorted(attachment.newly_initialised - left.keys()):
        raise AdapterError(
            f"the checkpoint does not hold {', '.join(missing[:4])}, and neither does the base: the head would be "
            "random. loralib's lora_state_dict leaves it out; save it too"
        )
    state |= {name: left.pop(name) for name in attachment.newly_initialised}
    _compare_with_base(attachment, grouped, state, left)
    return state


def _in_model(key: str, model: Any) -> str:
    """The reference code's names, as transformers has them: GPT-2's begin below `transformer`."""
    key = key.replace("lm_head.decoder.weight", "lm_head.weight")
    top = {name for name, _ in model.named_children()}
    return key if key.split(".")[0] in top else f"{model.base_model_prefix}.{key}"


def _pairs(
    attachment: LoRAAttachment, path: str, sites: list[Site], left: dict[str, Tensor]
) -> dict[str, Tensor]:
    """A and B of each part of one module; they are taken out of `left`."""
    keys = [f"{path}.lora_A", f"{path}.lora_B"]
    if missing := [key for key in keys if key not in left]:
        held = sorted({key.rpartition(".")[0] for key in left if key.endswith(".lora_A")})
        raise AdapterError(
            f"the checkpoint does not hold {missing[0]}{did_you_mean(path, held)} (it adapts {', '.join(held[:3])} "
            "...); does method.targets name what was adapted?"
        )
    a, b = (left.pop(key) for key in keys)
    for key, value in zip(keys, (a, b), strict=True):
        if not value.is_floating_point():
            raise AdapterError(
                f"the checkpoint's {key} is {str(value.dtype)[6:]}; LoRA's numbers are floats"
            )
    sites = sorted(sites, key=_first_row)
    ranks = [attachment.deltas[site.name].A.shape[0] for site in sites]
    heights, width = [site.shape[0] for site in sites], sites[0].shape[1]
    r = ranks[0]
    if len(set(ranks)) > 1 or a.shape != (len(sites) * r, width) or b.shape != (sum(heights), r):
        raise AdapterError(_other_shape(path, sites, a, b, r))
    rows = b.split(heights)
    return {
        f"{site.name}.{letter}": part
        for i, site in enumerate(sites)
        for letter, part in (("A", a[i * r : (i + 1) * r]), ("B", rows[i]))
    }


def _first_row(site: Site) -> int:
    return int(next(iter(row_numbers(site.rows, features(site.module)[0]))))


def _other_shape(path: str, sites: list[Site], a: Tensor, b: Tensor, r: int) -> str:
    wanted = f"lora_A {(len(sites) * r, sites[0].shape[1])}, lora_B {(sum(s.shape[0] for s in sites), r)}"
    found = f"lora_A {tuple(a.shape)} and lora_B {tuple(b.shape)}"
    said = f"{path}: the checkpoint has {found}; rank {r} on {', '.join(s.part for s in sites)} is {wanted}"
    if (
        b.ndim == 2
        and a.ndim == 2
        and b.shape[1] != r
        and a.shape == (len(sites) * b.shape[1], sites[0].shape[1])
    ):
        return f"{said}. Give method.r={b.shape[1]}, and the alpha of that run"
    return f"{said}. Is it of another model, or of other targets?"


def _compare_with_base(
    attachment: LoRAAttachment,
    grouped: Mapping[str, list[Site]],
    state: Mapping[str, Tensor],
    left: dict[str, Tensor],
) -> None:
    """What is left is the base itself, weight for weight, merged or not. AdapterError: it is not."""
    own = dict(attachment.model.named_parameters(remove_duplicate=False))
    merged = []
    for name, value in left.items():
        if name not in own:
            if name.endswith(BUFFERS):
                continue
            raise AdapterError(
                f"the checkpoint holds {name}, which this model has not{did_you_mean(name, own)}"
            )
        if value.shape != own[name].shape:
            raise AdapterError(
                f"{name}: the checkpoint has shape {tuple(value.shape)}, the base {tuple(own[name].shape)}"
            )
        base = own[name].detach().float().cpu()
        if torch.allclose(value, base, rtol=1e-3, atol=1e-5):
            continue
        path = name.removesuffix(".weight")
        if path not in grouped:
            raise AdapterError(
                f"the checkpoint's {name} is not the base's: it is of another base, or it was trained too, which LoRA "
                "does not"
            )
        _refuse_other_alpha(attachment, path, grouped[path], state, value - base)
        merged.append(path)
    if merged:
        log.warning(
            "the weights in the checkpoint were saved merged (%s and %d more): they are left out, and A and B go onto "
            "the base once",
            merged[0],
            len(merged) - 1,
        )


def _refuse_other_alpha(
    attachment: LoRAAttachment,
    path: str,
    sites: Iterable[Site],
    state: Mapping[str, Tensor],
    change: Tensor,
) -> None:
    """change, W - W0 of a merged weight, is (alpha/r) B A, and so tells alpha."""
    sites = list(sites)
    change = change.T if is_conv1d(sites[0].module) else change
    product = torch.zeros_like(change)
    for site in sites:
        rows = torch.tensor(list(row_numbers(site.rows, change.shape[0])))
        product[rows] = state[f"{site.name}.B"] @ state[f"{site.name}.A"]
    scale = float((change * product).sum() / product.square().sum().clamp(min=1e-30))
    if float((change - scale * product).norm()) > 0.05 * float(change.norm()):
        raise AdapterError(
            f"the checkpoint's {path}.weight is neither the base's nor that with B A folded in: it is of another base"
        )
    delta = attachment.deltas[sites[0].name]
    if abs(scale - delta.scale) > 0.02 * delta.scale:
        r = delta.A.shape[0]
        raise AdapterError(
            f"the checkpoint's {path}.weight was merged with alpha/r = {scale:.4g}, and the recipe has "
            f"{delta.scale:g}; give method.alpha={scale * r:.4g}"
        )
