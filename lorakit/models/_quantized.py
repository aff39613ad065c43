"""Frozen weights in 8 or 4 bits, by bitsandbytes: LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339) and NF4 with double
quantization (QLoRA, Dettmers et al. 2023, arXiv 2305.14314). What is trained stays fp32."""

from __future__ import annotations

import logging
from collections.abc import Collection
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from lorakit.errors import InputError, ModelError
from lorakit.nn.linear import is_conv1d


def quantization(
    kind: str, dtype: torch.dtype, newly_initialised: Collection[str], shapes: nn.Module
) -> Any:
    """What `from_pretrained` takes as `quantization_config`.

    dtype: of the products. newly_initialised: parameters that stay as they are. shapes: the model without
    its weights. InputError: bitsandbytes is missing. ModelError: layers that it would store transposed.
    """
    if find_spec("bitsandbytes") is None:
        raise InputError(
            f"model.quantize: {kind} needs bitsandbytes; pip install 'lorakit[quantized]'"
        )
    if any(is_conv1d(module) for module in shapes.modules()):
        raise ModelError(
            f"model.quantize: {type(shapes).__name__} keeps its weights transposed (Conv1D), which does not come back "
            "right from bitsandbytes; leave it out"
        )
    from transformers import BitsAndBytesConfig

    # casts of its input are how LLM.int8 works, and it tells of each
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    head = getattr(shapes, "get_output_embeddings", lambda: None)()
    names = {name for name, module in shapes.named_modules() if module is head}
    kept = sorted({*names, *(name.rsplit(".", 1)[0] for name in newly_initialised)} - {""})
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept or None)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept or None,
    )


def keep_trainable(model: nn.Module) -> None:
    """Have a 4-bit layer give gradients on a CPU too: bitsandbytes packs its weight anew when it is first asked outside
    of training, and from then on nothing flows back through it."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def dequantized(model: Any, dtype: torch.dtype) -> Any:
    """The model with plain linear layers that hold, in `dtype`, what its quantized weights stand for; in place."""
    model = model.dequantize(dtype=dtype)
    return model.to(dtype)
