"""PEFT adapters that lorakit does not read, and what can be done with each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from lorakit.errors import AdapterError

NEVER_MERGED = frozenset(
    "PROMPT_TUNING MULTITASK_PROMPT_TUNING P_TUNING PREFIX_TUNING ADAPTION_PROMPT CPT CARTRIDGE "
    "LILY SHADOW XLORA POLY".split()
)
"""Types of adapters that PEFT cannot fold into the weights, as what they add depends on the
input."""
MERGE = (
    "Merge it with PEFT, `PeftModel.from_pretrained(base, ADAPTER).merge_and_unload()"
    ".save_pretrained(FOLDER)`, save the tokenizer in FOLDER too, and give FOLDER as the base "
    "(model.name)"
)
UNTIE = (
    "This base has tied weights, and PEFT would merge the adapter into both: before, "
    "`base.config.tie_word_embeddings = False` and "
    "`base.{output}.weight = torch.nn.Parameter(base.{output}.weight.detach().clone())`"
)
ALONE = (
    "PEFT cannot merge it either, so it can be used with PEFT alone; "
    "lorakit trains another on the same base"
)


def refuse_kind(config: Mapping[str, Any]) -> None:
    """AdapterError: another type of adapter than LoRA."""
    kind = config.get("peft_type")
    if kind != "LORA":
        what = ALONE if kind in NEVER_MERGED else MERGE
        raise AdapterError(f"adapter_config.json: peft_type {kind!r}; lorakit reads LORA. {what}")


def refuse_variant(used: Mapping[str, Any]) -> None:
    """AdapterError for a field of adapter_config.json that makes another sum of it than plain
    LoRA."""
    if used:
        said = ", ".join(f"{key}={value!r}" for key, value in used.items())
        what = ALONE if "alora_invocation_tokens" in used else MERGE
        raise AdapterError(f"adapter_config.json asks for {said}, which plain LoRA is not. {what}")


def refuse_embeddings(folder: Path, tensors: Collection[str], model: Any, prefix: str) -> None:
    """AdapterError: a low-rank change of an embedding or of the output layer."""
    layers: tuple[Any, ...] = tuple(
        getattr(model, f"get_{side}_embeddings", lambda: None)() for side in ("input", "output")
    )
    names = [(path, module) for path, module in model.named_modules() if path]
    of = {path for path, module in names if isinstance(module, nn.Embedding) or module in layers}
    found = sorted({_path(name.removeprefix(prefix)) for name in tensors if ".lora_" in name} & of)
    if not found:
        return
    output = next((path for path, module in names if module is layers[1]), None)
    ends = {path for path, module in names if module in layers}
    tied = output is not None and layers[0].weight is layers[1].weight and ends & {*found}
    more = f". {UNTIE.format(output=output)}" if tied else ""
    raise AdapterError(
        f"{folder} holds LoRA on {', '.join(found)}, and lorakit reads LoRA on linear layers, "
        f"the output layer not included. {MERGE}{more}"
    )


def _path(name: str) -> str:
    return name.partition(".lora_")[0]
