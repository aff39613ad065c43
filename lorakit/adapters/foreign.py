"""PEFT adapters that lorakit does not read, and what can be done with each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

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
CONVERT = (
    "It changed the base's weights by what data or a random draw gave, and the file does not hold "
    "that. With PEFT, save the adapter again in the process that trained it, as LoRA of twice the "
    "rank: `save_pretrained(FOLDER, path_initial_model_for_weight_conversion=INITIAL)`. If the "
    "changed base was saved, give it as the base, and set init_lora_weights to true in "
    "adapter_config.json"
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
    """AdapterError for a field of adapter_config.json that makes something else of it than the
    method that it is read as."""
    if not used:
        return
    said = ", ".join(f"{key}={value!r}" for key, value in used.items())
    what = MERGE
    if "init_lora_weights" in used:
        what = CONVERT
    # PEFT's copies of a layer share its weights, and its merge adds each copy's change to them
    if {"alora_invocation_tokens", "layer_replication"} & used.keys():
        what = ALONE
    raise AdapterError(f"adapter_config.json asks for {said}, which lorakit does not read. {what}")


def refuse_embeddings(
    config: Mapping[str, Any], variant: Collection[str], embeddings: Collection[str]
) -> None:
    """AdapterError: a change of an embedding that is not plain LoRA of this layer alone.

    variant: the fields that make a variant of LoRA what it is.
    """
    if not embeddings:
        return
    where = ", ".join(sorted(embeddings))
    used = {key: config[key] for key in variant}
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init not in ("gaussian", "eva", "mica"):
        used["init_lora_weights"] = init
    if config.get("ensure_weight_tying"):
        used["ensure_weight_tying"] = True
    if used:
        said = ", ".join(f"{key}={value!r}" for key, value in used.items())
        raise AdapterError(
            f"adapter_config.json asks for {said} on the embedding {where}, where lorakit reads "
            f"plain LoRA only. {MERGE}"
        )
