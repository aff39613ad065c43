"""Peers of `lorakit bench`: the LoRA of PEFT and of loralib, on a base that lorakit made."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from benchmarks.peft_adapters import PeftAdapters
from lorakit.bench._models import sites_of, train_head
from lorakit.nn.linear import is_conv1d


def with_peft(model: Any, r: int, alpha: int, dropout: float, autocast: bool = True) -> Any:
    """The model with PEFT's LoRA on query and value. A fused weight is adapted completely.

    autocast: PEFT's `autocast_adapter_dtype`: adapters in fp32 on a base in half precision.
    Source: the quick tour of PEFT's documentation, and its page "LoRA" for the dtype.
    """
    from peft import LoraConfig, get_peft_model

    is_causal = model.get_output_embeddings() is not None
    config = LoraConfig(
        task_type="CAUSAL_LM" if is_causal else "SEQ_CLS",
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=sorted({site.path.rsplit(".", 1)[1] for site in sites_of(model)}),
        fan_in_fan_out=any(is_conv1d(module) for module in model.modules()),
    )
    return get_peft_model(model, config, autocast_adapter_dtype=autocast)


def with_loralib(model: Any, r: int, alpha: int, dropout: float) -> nn.Module:
    """The model with loralib's layers in place of query and value."""
    import loralib

    numbers = {"r": r, "lora_alpha": alpha, "lora_dropout": dropout}
    for path, module in {site.path: site.module for site in sites_of(model)}.items():
        new = _loralib_layer(module, numbers).to(module.weight.dtype)
        # not strict, because the base has no A and B
        new.load_state_dict(module.state_dict(), strict=False)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, new)
    loralib.mark_only_lora_as_trainable(model)
    train_head(model)
    return model


def _loralib_layer(module: Any, numbers: dict[str, Any]) -> Any:
    import loralib

    if is_conv1d(module):
        # GPT-2's fused weight: query, key and value, stored as (in, out)
        in_features, out_features = module.weight.shape
        fused = {"enable_lora": [True, False, True], "fan_in_fan_out": True}
        return loralib.MergedLinear(in_features, out_features, **numbers, **fused)
    out_features, in_features = module.weight.shape
    bias = module.bias is not None
    return loralib.Linear(in_features, out_features, bias=bias, **numbers)


class PeftStages:
    """The stages of `lorakit bench merge` in PEFT."""

    def __init__(self, method: Any, base: Any, folder: Path):
        self.method = method
        self.base = base
        self.folder = folder

    def prepared(self, stage: str) -> Callable[[], Callable[[], Any]]:
        """A function that makes a new model and returns the call that is timed."""
        from peft import PeftModel

        def make() -> Callable[[], Any]:
            model = copy.deepcopy(self.base)
            if stage == "attach":
                return lambda: self._adapted(model)
            if stage == "read":
                return lambda: PeftModel.from_pretrained(model, str(self.folder))
            adapted = self._adapted(model)
            if stage == "save":
                return lambda: adapted.save_pretrained(self.folder)
            return adapted.merge_and_unload

        return make

    def _adapted(self, model: Any) -> Any:
        return with_peft(model, self.method.r, int(self.method.alpha), 0.0)


def peft_adapters(
    base: Callable[[], Any], folders: Mapping[str, Path], batch: dict[str, Tensor]
) -> dict[str, dict[str, PeftAdapters]]:
    """Stage of `lorakit bench adapters` -> setting -> PEFT's stages; its default comes first."""
    plain = PeftAdapters(base(), folders, batch)
    lean = PeftAdapters(base(), folders, batch, lean=True)
    eager = PeftAdapters(base(), folders, batch, attention="eager")
    return {
        "switch": {"as it comes": plain},
        "load": {"as it comes": plain, "low_cpu_mem_usage": lean},
        "combine": {"cat": plain},
        "mix": {"sdpa": plain, "eager": eager},
    }
