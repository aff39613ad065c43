"""How many tokens a model takes: from its table of positions, of which some models keep the first rows back."""

from __future__ import annotations

import copy
import logging
from typing import Any

from lorakit.errors import ModelError
from lorakit.nn.settings import text_config
from lorakit.tasks import Data

log = logging.getLogger(__name__)

TABLES = frozenset(
    (
        "position_embeddings",
        "position_embedding",
        "embed_positions",
        "wpe",
        "positions_embed",
        "pos_embeddings",
    )
)
"""What architectures call a table with a row per position. Two-dimensional layouts have others (`x_position_...`)."""
RELATIVE = frozenset(("relative_attention_bias", "rel_embeddings", "rel_attn"))
"""What those have instead that know distances only, and so take a text of any length."""


UNSTATED = 10**9


def refuse_too_long(data: Data, tokenizer: Any, config: Any, added: int = 0) -> None:
    """ModelError where `data.max_length` is more than the model has positions for. added: tokens of the method."""
    most = most_tokens(config)
    own = getattr(tokenizer, "model_max_length", None)
    if most is not None and isinstance(own, int) and own > 0:
        most = min(most, own)
    if most is not None and data.max_length + added > most:
        words = f" and the {added} tokens of the method are" if added else " is"
        raise ModelError(
            f"data.max_length {data.max_length}{words} more than the {most} tokens that the model takes"
        )


def most_tokens(config: Any) -> int | None:
    """Tokens that a model of this configuration takes; None where it knows distances only, and so takes any number."""
    config = text_config(config)  # a vision tower has a table of its own, of patches
    stated = getattr(config, "max_position_embeddings", None) or getattr(
        config, "max_seq_len", None
    )
    stated = stated if isinstance(stated, int) and stated > 0 else UNSTATED
    shapes = _outlined(config)
    modules = (
        []
        if shapes is None
        else [(name.rpartition(".")[2], m) for name, m in shapes.named_modules()]
    )
    rows = [usable for name, m in modules if name in TABLES and (usable := _usable(m)) is not None]
    if not rows and any(name in RELATIVE for name, _ in modules):
        return None
    return min([stated, *rows])


def _usable(table: Any) -> int | None:
    """Rows that tokens get: RoBERTa's begin after that of the padding, OPT's and BART's after `offset` others."""
    weight = getattr(table, "weight", None)
    if weight is None or weight.ndim != 2:
        return None
    padding = getattr(table, "padding_idx", None)
    kept = getattr(table, "offset", None) or (0 if padding is None else padding + 1)
    return weight.shape[0] - kept


def _outlined(config: Any) -> Any:
    """The model's shapes, with one layer; None for what transformers cannot make of the configuration alone."""
    import torch
    from transformers import AutoModel, PretrainedConfig

    if not isinstance(config, PretrainedConfig):
        return None
    for layers in (1, None):
        small = copy.deepcopy(config)
        try:
            if layers:
                small.num_hidden_layers = layers
            with torch.device("meta"):
                return AutoModel.from_config(small)
        except Exception as error:  # whatever a configuration of any architecture may raise
            log.debug("no outline of %s: %s", type(config).__name__, error)
    return None
