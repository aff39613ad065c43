"""LoRA to and from PEFT's tensors and adapter_config.json.

A fused weight of which only some rows are adapted (q and v of GPT-2's c_attn) goes out exactly: PEFT knows one A and
one B per module, so the parts' ranks are stacked,

    A' = [A_q ; A_v]  (2r, in)        B' = [B_q 0 ; 0 0 ; 0 B_v]  (out, 2r)        r' = 2r,  alpha' = 2 alpha

which has the same dW and the same scale alpha'/r' = alpha/r. Training such a file on in PEFT fills the zero blocks.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor, nn

from lorakit.adapters.foreign import refuse_variant
from lorakit.errors import AdapterError
from lorakit.methods.reparam.lora import LoRA, LoRAAttachment, Target
from lorakit.nn import tokens
from lorakit.nn.linear import features, is_conv1d
from lorakit.nn.select import Site, compiled


def _regex(text: str) -> str:
    try:
        compiled(text)
    except ValueError as error:
        raise ValueError(f"no regular expression{error}") from None
    return text


PREFIX = "base_model.model."

# fields of adapter_config.json that plain LoRA has, or that do not change what a finished adapter computes
_PLAIN = frozenset(
    "peft_type peft_version auto_mapping base_model_name_or_path revision inference_mode task_type runtime_config r "
    "lora_alpha lora_dropout use_rslora rank_pattern alpha_pattern fan_in_fan_out target_modules exclude_modules "
    "modules_to_save layers_to_transform layers_pattern loftq_config eva_config corda_config lora_ga_config "
    "ensure_weight_tying megatron_core qalora_group_size".split()
)
Pattern = Annotated[str, AfterValidator(_regex)]
_UNUSED = (None, False, "none", {}, [], "")
# how A and B began; the others (PiSSA, OLoRA ...) change W0 as well, and the file does not hold that
_INITS = (None, True, False, "gaussian", "eva", "orthogonal")


class Fields(BaseModel):
    """What of adapter_config.json is used here, so that a wrong type is said where it stands."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    base_model_name_or_path: str | None = None
    revision: str | None = None
    task_type: str | None = None
    r: int = Field(default=8, ge=1)
    rank_pattern: dict[Pattern, Annotated[int, Field(ge=1)]] | None = None
    lora_alpha: float = Field(default=8, gt=0, le=1e6)
    lora_dropout: float | None = Field(default=None, ge=0, lt=1)
    use_rslora: bool | None = None
    alpha_pattern: dict[Pattern, Annotated[float, Field(gt=0, le=1e6)]] | None = None


def tensors_of(attachment: LoRAAttachment) -> dict[str, Tensor]:
    """The attachment as PEFT's tensors: lora_A (r, in) and lora_B (out, r) per module, and what is newly initialised, whole.

    On the CPU; what is there already is not copied.
    """
    tensors = {}
    for path, sites in _by_module(attachment.sites).items():
        a, b = _stacked(attachment, sites)
        tensors[f"{PREFIX}{path}.lora_A.weight"] = a
        tensors[f"{PREFIX}{path}.lora_B.weight"] = b
    for name in sorted(attachment.newly_initialised):
        tensors[f"{PREFIX}{_outside(name)}"] = attachment.model.get_parameter(name).detach().cpu()
    return tensors


def config_of(
    attachment: LoRAAttachment, base: str, revision: str | None, task_type: str | None
) -> dict[str, Any]:
    """adapter_config.json: only fields that differ from PEFT's defaults, so that old readers take it too."""
    numbers = {
        path: _rank_and_alpha(attachment, sites)
        for path, sites in _by_module(attachment.sites).items()
    }
    (r, alpha), _ = Counter(numbers.values()).most_common(1)[0]
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "revision": revision,
        "task_type": task_type,
        "r": r,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": attachment.method.dropout,
        "bias": "none",
        "inference_mode": True,
        "fan_in_fan_out": any(is_conv1d(site.module) for site in attachment.sites),
        "target_modules": _shortest_names(attachment.model, set(numbers)),
    }
    other = {path: n for path, n in numbers.items() if n != (r, alpha)}
    if other:
        config["rank_pattern"] = {path: n[0] for path, n in sorted(other.items())}
        config["alpha_pattern"] = {path: n[1] for path, n in sorted(other.items())}
    rows = {name for name in attachment.newly_initialised if name.endswith(tokens.END)}
    heads = _whole_modules(attachment.model, attachment.newly_initialised - rows)
    if rows:
        config["trainable_token_indices"] = tokens.rows_of(attachment.model)
    if heads:
        config["modules_to_save"] = heads
    return config


def method_of(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LoRA:
    """The LoRA that a PEFT adapter from elsewhere is: whole modules by their full names, each with its r and alpha.

    AdapterError: a variant of LoRA that this is not.
    """
    refuse_variant(
        {
            key: value
            for key, value in config.items()
            if key not in _PLAIN and not _inert(key, value)
        }
    )
    paths = sorted(
        key[len(PREFIX) : -len(".lora_A.weight")]
        for key in tensors
        if key.endswith(".lora_A.weight")
    )
    if not paths:
        raise AdapterError("the adapter holds no lora_A tensor for a linear layer")
    numbers = {
        path: _numbers(path, tensors[f"{PREFIX}{path}.lora_A.weight"].shape[0], config)
        for path in paths
    }
    (r, alpha), _ = Counter(numbers.values()).most_common(1)[0]
    targets = tuple(
        _exactly(path) if n == (r, alpha) else Target(match=_exactly(path), r=n[0], alpha=n[1])
        for path, n in numbers.items()
    )
    return LoRA(targets=targets, r=r, alpha=alpha, dropout=float(config.get("lora_dropout") or 0.0))


def state_of(attachment: LoRAAttachment, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """PEFT's tensors as the attachment's `load_state` takes them; AdapterError for a module that has none."""
    left = dict(tensors)
    state: dict[str, Tensor] = {}
    for path, sites in _by_module(attachment.sites).items():
        keys = [f"{PREFIX}{path}.lora_A.weight", f"{PREFIX}{path}.lora_B.weight"]
        if not all(key in left for key in keys):
            raise AdapterError(f"the adapter holds no lora_A and lora_B for {path}")
        state |= _unstacked(attachment, sites, *(left.pop(key) for key in keys))
    for name in attachment.newly_initialised:
        if (key := f"{PREFIX}{_outside(name)}") in left:
            state[name] = left.pop(key)
    state |= {
        key.removeprefix(PREFIX): value for key, value in left.items()
    }  # left over: load_state names them
    return state


def _outside(name: str) -> str:
    """PEFT's name for a parameter that is saved whole: it calls the rows of new tokens otherwise."""
    return (
        name.removesuffix(tokens.END) + ".token_adapter.trainable_tokens_delta"
        if name.endswith(tokens.END)
        else name
    )


def extra_names(tensors: Iterable[str]) -> set[str]:
    """Parameters that an adapter holds whole (modules_to_save), by their names in the model."""
    return {key.removeprefix(PREFIX) for key in tensors if ".lora_" not in key}


def _inert(key: str, value: Any) -> bool:
    return value in (_INITS if key == "init_lora_weights" else _UNUSED)


def _exactly(path: str) -> str:
    return f"re:{re.escape(path)}"


def _numbers(path: str, r: int, config: Mapping[str, Any]) -> tuple[int, float]:
    said = _of_pattern(config.get("rank_pattern"), path, config.get("r", r))
    if said != r:
        raise AdapterError(
            f"adapter_config.json gives {path} the rank {said}, and its lora_A has {r}"
        )
    alpha = float(_of_pattern(config.get("alpha_pattern"), path, config.get("lora_alpha", 8)))
    return r, alpha * r**0.5 if config.get("use_rslora") else alpha


def _of_pattern(patterns: Mapping[str, Any] | None, path: str, otherwise: Any) -> Any:
    """The first that matches wins, as in PEFT."""
    return next(
        (n for pattern, n in (patterns or {}).items() if re.match(rf"(.*\.)?({pattern})$", path)),
        otherwise,
    )


def _by_module(sites: Iterable[Site]) -> dict[str, list[Site]]:
    grouped: dict[str, list[Site]] = defaultdict(list)
    for site in sites:
        grouped[site.path].append(site)
    return dict(grouped)


def _rank_and_alpha(attachment: LoRAAttachment, sites: list[Site]) -> tuple[int, float]:
    """(r', alpha') of one module. One scale for all parts stays in alpha'; several are folded into B'."""
    rank = sum(attachment.deltas[site.name].A.shape[0] for site in sites)
    return rank, _common_scale(attachment, sites) * rank


def _stacked(attachment: LoRAAttachment, sites: list[Site]) -> tuple[Tensor, Tensor]:
    """(A', B') of one module."""
    deltas = [attachment.deltas[site.name] for site in sites]
    if len(sites) == 1 and sites[0].rows is None:
        return deltas[0].A.detach().cpu(), deltas[0].B.detach().cpu()
    out = features(sites[0].module)[0]
    ranks = [delta.A.shape[0] for delta in deltas]
    scale = _common_scale(attachment, sites)
    b = torch.zeros(out, sum(ranks), dtype=deltas[0].B.dtype)
    column = 0
    for site, delta, r in zip(sites, deltas, ranks, strict=True):
        b[site.index, column : column + r] = delta.B.detach().cpu() * (delta.scale / scale)
        column += r
    return torch.cat([delta.A.detach().cpu() for delta in deltas]), b


def _common_scale(attachment: LoRAAttachment, sites: list[Site]) -> float:
    """alpha/r of a module's parts, where they agree; else 1: each part's own scale is then folded into its B'."""
    scales = {attachment.deltas[site.name].scale for site in sites}
    return scales.pop() if len(scales) == 1 else 1.0


def _unstacked(
    attachment: LoRAAttachment, sites: list[Site], a: Tensor, b: Tensor
) -> dict[str, Tensor]:
    state, column = {}, 0
    out = features(sites[0].module)[0]
    wanted = sum(attachment.deltas[site.name].A.shape[0] for site in sites)
    if a.shape[0] != wanted or b.shape != (out, wanted):
        raise AdapterError(
            f"{sites[0].path}: the file has lora_A {tuple(a.shape)} and lora_B {tuple(b.shape)}, "
            f"this model takes rank {wanted} and {out} rows"
        )
    used = torch.zeros_like(b, dtype=torch.bool)
    scale = _common_scale(attachment, sites)
    for site in sites:
        delta = attachment.deltas[site.name]
        r = delta.A.shape[0]
        state[f"{site.name}.A"] = a[column : column + r]
        state[f"{site.name}.B"] = b[site.index, column : column + r] / (delta.scale / scale)
        used[site.index, column : column + r] = True
        column += r
    if bool(b[~used].any()):
        raise AdapterError(
            f"{sites[0].path}: lora_B is not zero outside the rows of {', '.join(s.part for s in sites)}; "
            "it was trained further elsewhere. Load it as an adapter of the whole module (remove lorakit's metadata)."
        )
    return state


def _shortest_names(model: nn.Module, paths: set[str]) -> list[str]:
    """PEFT's target_modules: the last words of the paths where they mean just these modules, else the full paths."""
    words = {path.rpartition(".")[2] for path in paths}
    # PEFT asks for the name alone, whatever bears it
    meant = {path for path, _ in model.named_modules() if path.rpartition(".")[2] in words}
    return sorted(words) if meant == paths else sorted(paths)


def _whole_modules(model: nn.Module, names: Iterable[str]) -> list[str]:
    """The highest modules all of whose parameters are in `names`: what PEFT calls modules_to_save."""
    names = set(names)
    above = {".".join(name.split(".")[:n]) for name in names for n in range(1, name.count(".") + 1)}
    chosen: list[str] = []
    for path in sorted(above):  # a module before those in it
        if not any(path.startswith(f"{c}.") for c in chosen):
            own = [
                n
                for n, _ in model.get_submodule(path).named_parameters()
                if not n.startswith("delta.")
            ]
            if all(f"{path}.{n}" in names for n in own):
                chosen.append(path)
    return chosen
