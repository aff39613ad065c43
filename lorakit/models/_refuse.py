"""What a base's configuration may ask for, and is refused: weights from elsewhere, code, a form that is not plain."""

from __future__ import annotations

from typing import Any

from lorakit.errors import ModelError
from lorakit.models._base import Model
from lorakit.models._files import cached_of
from lorakit.models._trust import FLAG, is_trusted

_UNPACKED = ("mxfp4",)
"""Methods whose weights transformers turns into plain ones where it has no kernels for them."""


def refuse_unfit(config: Any, spec: Model) -> None:
    """ModelError: stored quantized, other files than the usual ones, an adapter, code from the hub."""
    _refuse_quantized(config, spec)
    _refuse_kernels(config, spec)
    if file := getattr(config, "transformers_weights", None):
        raise ModelError(
            f"{spec.name}/config.json names its weights itself (transformers_weights: {file!r}); lorakit reads "
            "model.safetensors, or its index. Rename the file, and remove the key"
        )
    if cached_of(spec, "adapter_config.json", local=True):
        raise ModelError(
            f"{spec.name} holds adapter_config.json: its weights would be taken from the base that the adapter names. "
            "Give that base (and start_from, to go on from an adapter), or remove the adapter's files"
        )


def _refuse_quantized(config: Any, spec: Model) -> None:
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return
    said = stored if isinstance(stored, dict) else vars(stored)
    method = str(getattr(said.get("quant_method"), "value", said.get("quant_method")))
    if method in _UNPACKED:
        return
    if said.get("load_in_4bit") or said.get("_load_in_4bit"):
        method = "bitsandbytes, 4 bits"
    elif said.get("load_in_8bit") or said.get("_load_in_8bit"):
        method = "bitsandbytes, 8 bits"
    raise ModelError(
        f"{spec.name} is stored quantized ({method}): an adapter on it could be neither merged nor proven. Give the "
        "checkpoint that it was made from (model.name, or --model for an adapter); `model.quantize: nf4` or `int8` "
        "stores that in as few bits while it trains"
    )


def _refuse_kernels(config: Any, spec: Model) -> None:
    """An attention with a slash is a repository of code on the hub."""
    if is_trusted():
        return
    parts = [config, *(getattr(config, name, None) for name in getattr(config, "sub_configs", {}))]
    for part in parts:
        for key in ("_attn_implementation", "_experts_implementation"):
            if "/" in str(wanted := getattr(part, key, None)):
                raise ModelError(
                    f"{spec.name} asks for {key[1:]} {wanted!r}, which is code from the hub. Remove it from "
                    f"config.json or model.config, or give {FLAG} if you trust it"
                )
