"""Stock models of transformers with our weights, without a layer or attention of lorakit.

Proofs compare with them, so that they do not compare a change with itself.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lorakit.fast.attention import NAME


def plain_of(model: Any) -> nn.Module:
    """A stock model of the same class and configuration that shares the weights of a merged model.

    Raises what transformers raises for a class that it cannot make from weights in memory.
    """
    how = model.config._attn_implementation
    device = next(model.parameters()).device
    place: dict[str, Any] = {} if device.type == "cpu" else {"device_map": {"": device}}
    made = type(model).from_pretrained(
        None,
        config=copy.deepcopy(model.config),
        state_dict=model.state_dict(),
        dtype=model.dtype,
        attn_implementation="sdpa" if how == NAME else how,
        **place,
    )
    return made.eval()


def read_plain(folder: Path, cls: Any) -> nn.Module:
    """The model folder as transformers reads it, in float32 on the CPU. cls: its class.

    Raises what transformers raises for a folder that it cannot read.
    """
    return cls.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval()
