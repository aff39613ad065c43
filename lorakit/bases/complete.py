"""Completeness: the checkpoint holds the entire body of the model, and all of it is used.

transformers initialises tensors that it does not find and drops tensors that it has no place for.
It reports both and raises for neither. Here only a head may be newly initialised.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from torch import nn

from lorakit.bases.mismatch import absent_message, other_shape_message, output_weight
from lorakit.errors import ModelError
from lorakit.models import Family, Model, family_of

log = logging.getLogger(__name__)

COMPUTED = re.compile(
    r"(^|\.)(position_ids|token_type_ids|masked_bias|(original_)?inv_freq|relative_position_index"
    r"|num_batches_tracked)$|(attn|attention)\.bias$"
)
"""Masks and tables that old versions saved with the weights and that are computed today."""
_BLOCK = re.compile(r"(^|\.)(layers?|blocks?|h)\.\d+\.")
_LAYER_COUNTS = frozenset(
    {
        "num_hidden_layers",
        "num_layers",
        "n_layer",
        "n_layers",
        "encoder_layers",
        "decoder_layers",
        "num_decoder_layers",
    }
)
"""Names of the number of layers. A recipe that sets one drops layers on purpose."""


def newly_initialised_of(
    model: nn.Module, report: Mapping[str, Any], spec: Model, head: str
) -> frozenset[str]:
    """Parameters of the head that the checkpoint does not hold.

    report: transformers' loading report. ModelError: a tensor of the body is absent or has another
    shape, or a tensor of the checkpoint has no place in the model.
    """
    own = {name for name, _ in model.named_parameters()}
    # transformers lists tied weights and buffers too, which are not parameters
    missing = own.intersection(report["missing_keys"]) - untied(model, report, spec)
    resized = {
        name: (tuple(held), tuple(wanted))
        for name, held, wanted in report["mismatched_keys"]
        if name in own
    }
    is_body = _body_pattern(model, head).match
    other = {name: shapes for name, shapes in sorted(resized.items()) if is_body(name)}
    if other:
        raise ModelError(other_shape_message(other, model, spec))
    optional = _optional_modules(model)
    absent = sorted(n for n in missing if is_body(n) and optional.isdisjoint(n.split(".")))
    if absent:
        needed = sum(is_body(name) is not None for name in own)
        raise ModelError(absent_message(absent, needed, model, spec))
    _refuse_unused(model, report["unexpected_keys"], spec)
    return frozenset(missing | resized.keys())


def untied(model: Any, report: Mapping[str, Any], spec: Model) -> set[str]:
    """The output layer's weight if the recipe unties it and the checkpoint does not hold it.

    Empty otherwise.
    """
    if spec.config.get("tie_word_embeddings") is not False or model.get_output_embeddings() is None:
        return set()
    return {output_weight(model)} & set(report["missing_keys"])


def _optional_modules(model: Any) -> set[str]:
    family = family_of(model.config.model_type)
    return set(family.may_be_new if family else Family.may_be_new)


def _body_pattern(model: Any, head: str) -> re.Pattern[str]:
    """Matches parameters that must come from the checkpoint.

    For a causal model these are all, the output layer included.
    """
    if head == "causal":
        return re.compile("")
    prefix = getattr(model, "base_model_prefix", "")
    if prefix and isinstance(getattr(model, prefix, None), nn.Module):
        return re.compile(rf"{re.escape(prefix)}\.")
    # without a prefix, the body is what holds the embeddings or a list of blocks
    embeddings = model.get_input_embeddings()
    parts = [
        re.escape(name)
        for name, part in model.named_children()
        if any(m is embeddings or isinstance(m, nn.ModuleList) for m in part.modules())
    ]
    return re.compile(rf"({'|'.join(parts)})(\.|$)")


def _refuse_unused(model: nn.Module, unexpected: Collection[str], spec: Model) -> None:
    modules = dict(model.named_modules())
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    names = sorted(name for name in unexpected if not COMPUTED.search(name))
    dropped = [
        name
        for name in names
        if _has_place(name, modules, prefix) or _has_place(prefix + name, modules, prefix)
    ]
    if dropped and not _LAYER_COUNTS & set(spec.config):
        raise ModelError(
            f"{spec.name}'s weights hold {len(dropped)} tensors that the model has no place for by "
            f"its configuration (the first: {dropped[0]}): trained numbers would be left out. "
            "Correct config.json (the number of layers, the architecture); to leave layers out on "
            "purpose, set their number in model.config."
        )
    unused = [name for name in names if _BLOCK.search(name)]
    if unused:
        _warn_once(
            f"{spec.name}: {len(unused)} tensors have no place in {type(model).__name__} and are "
            f"not used, such as {unused[0]}"
        )


def _has_place(name: str, modules: Mapping[str, nn.Module], prefix: str) -> bool:
    """Whether the model has the tensor's list of blocks or, in its body, the tensor's layer."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.isdigit() and isinstance(modules.get(".".join(parts[:i])), nn.ModuleList):
            return True
    parent = modules.get(".".join(parts[:-1]))
    leaf = parent is not None and not any(True for _ in parent.children())
    return leaf and name.startswith(prefix) and parts[-1] in ("weight", "bias")


@cache
def _warn_once(text: str) -> None:
    log.warning(text)
