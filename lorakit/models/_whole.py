"""Whether a checkpoint holds the whole body of a model, and nothing of it is left out.

transformers initialises what it does not find and drops what it has no place for; both are silent, and only a head may
be new.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from torch import nn

from lorakit.errors import ModelError
from lorakit.models._base import NEW, Family, Model
from lorakit.models._files import cached_of, shapes_of, weight_files
from lorakit.nn.settings import text_config

log = logging.getLogger(__name__)

_LEFTOVER = re.compile(
    r"(^|\.)(position_ids|token_type_ids|masked_bias|(original_)?inv_freq|relative_position_index"
    r"|num_batches_tracked)$|(attn|attention)\.bias$"
)
"""Masks and tables that old versions saved with the weights, and that are computed now."""
_LAYER = re.compile(r"(^|\.)(layers?|blocks?|h)\.\d+\.")
_COUNTS = frozenset(
    "num_hidden_layers num_layers n_layer n_layers encoder_layers decoder_layers num_decoder_layers".split()
)
"""What configurations call their number of layers: set in `model.config`, layers are left out on purpose."""
_OFFSETS = (0, 2)
"""OPT's and BART's tables of positions have two rows more than the configuration says."""


def what_loading_would_find(model: nn.Module, config: Any, spec: Model) -> Mapping[str, Any] | None:
    """transformers' report of loading the checkpoint into `model`, from the headers of its files alone.

    None where the files are not on this machine, or only their numbers could tell. ModelError: a damaged file.
    """
    files = weight_files(spec, local=True)
    if not files or getattr(config, "quantization_config", None) is not None:
        return None
    shapes: Any = shapes_of(files)
    cls: Any = type(model)
    try:
        with _quiet():
            _, info = cls.from_pretrained(
                None,
                config=config,
                state_dict=shapes,
                device_map={"": "meta"},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (
        Exception
    ) as error:  # a conversion that needs numbers: loading itself will say what is wrong
        log.debug("the headers of %s say nothing: %r", spec.name, error)
        return None
    return info


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers would report the head as new, and show a bar; loading itself does that again."""
    from transformers.utils import logging as theirs

    level, shown = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if shown:
            theirs.enable_progress_bar()


def newly_initialised_of(
    model: nn.Module, info: Mapping[str, Any], spec: Model, family: Family | None, head: str
) -> frozenset[str]:
    """Parameters of the head that the checkpoint does not hold.

    info: transformers' report of loading. ModelError: a tensor of the body is absent or of another shape, or one that
    the checkpoint holds has no place in the model.
    """
    own = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    missing = {name for name in info["missing_keys"] if name in own} - untied(model, info, spec)
    resized = {
        name: (tuple(held), tuple(wanted))
        for name, held, wanted in info["mismatched_keys"]
        if name in own
    }
    new = NEW if family is None else family.may_be_new
    body = _body(model, head)
    absent = sorted(n for n in missing if body.match(n) and not set(new) & set(n.split(".")))
    other = {n: shapes for n, shapes in sorted(resized.items()) if body.match(n)}
    if other:
        raise ModelError(_of_another_shape(other, model, spec))
    if absent:
        raise ModelError(_is_absent(absent, [n for n in own if body.match(n)], model, spec))
    _refuse_left_out(model, info["unexpected_keys"], spec)
    return frozenset(missing | resized.keys())


def untied(model: Any, info: Mapping[str, Any], spec: Model) -> set[str]:
    """The output layer's weight, where the recipe unties it from the embeddings and the checkpoint has only these."""
    if spec.config.get("tie_word_embeddings") is not False or model.get_output_embeddings() is None:
        return set()
    return {_output_of(model)} & set(info["missing_keys"])


def _body(model: nn.Module, head: str) -> re.Pattern[str]:
    """Matches the names of what must come from the checkpoint: for a causal model its output layer too."""
    prefix = getattr(model, "base_model_prefix", "")
    if head == "causal":
        return re.compile("")
    if prefix and isinstance(getattr(model, prefix, None), nn.Module):
        return re.compile(rf"{re.escape(prefix)}\.")
    embeddings = model.get_input_embeddings()  # type: ignore[operator]
    parts = [
        re.escape(name)
        for name, part in model.named_children()
        if any(
            module is embeddings or isinstance(module, nn.ModuleList) for module in part.modules()
        )
    ]
    return re.compile(rf"({'|'.join(parts)})(\.|$)")


def _of_another_shape(other: Mapping[str, tuple[Any, Any]], model: Any, spec: Model) -> str:
    name, (held, wanted) = next(iter(other.items()))
    more = f" (and {len(other) - 1} more tensors differ)" if len(other) > 1 else ""
    causes = _causes(held, wanted, name, model.config, spec)
    why = f": {'; '.join(causes)}" if causes else ""
    return (
        f"{name} is {held} in {spec.name}'s weights, and {wanted} by its configuration{why}{more}. It would be random "
        "numbers. Correct config.json, or give the weights that belong to it."
    )


def _causes(
    held: tuple[int, ...], wanted: tuple[int, ...], name: str, config: Any, spec: Model
) -> list[str]:
    """The sizes of the configuration that may be meant, those that nobody set first."""
    differ = set(wanted)
    if len(held) == len(wanted):
        differ = {size for was, size in zip(held, wanted, strict=True) if was != size}
    text, said = text_config(config), _said(spec)
    names = getattr(text, "attribute_map", {})
    found = []
    for key, value in text.to_dict().items():
        if not _is_size(key, value) or not any(value + more in differ for more in _OFFSETS):
            continue
        others = {other for other, own in names.items() if own == key}
        alike = len(set(key.split("_")) & set(re.split(r"[._]", name)))
        if key in spec.config:
            found.append((1, -alike, f"model.config sets {key} to {value}"))
        elif {key, *others} & said:
            found.append((1, -alike, f"config.json sets {key} to {value}"))
        else:
            found.append(
                (0, -alike, f"config.json does not set {key}, which is {value} by default")
            )
    return [cause for _, _, cause in sorted(found)][:2]


def _is_size(key: str, value: Any) -> bool:
    return type(value) is int and value > 1 and not key.endswith("token_id")


def _said(spec: Model) -> set[str]:
    """The keys that the checkpoint's config.json has, at any depth."""
    file = cached_of(spec, "config.json", local=True)
    content = json.loads(file.read_text(encoding="utf-8")) if file else {}
    return set(_keys(content))


def _keys(value: Any) -> list[str]:
    if not isinstance(value, dict):
        return []
    return [*value, *(key for inner in value.values() for key in _keys(inner))]


def _is_absent(absent: list[str], body: Collection[str], model: nn.Module, spec: Model) -> str:
    cls = type(model).__name__
    if len(absent) > len(body) // 2:
        return (
            f"{spec.name} does not hold the weights of {cls}: {len(absent)} of {len(body)} tensors are absent "
            f"(the first: {absent[0]}). Is it a checkpoint of another architecture?"
        )
    listed = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
    tied = ""
    if len(absent) == 1 and absent[0].endswith(_output_of(model)):
        tied = " If it is the embeddings again, config.json must set tie_word_embeddings to true."
    return (
        f"{spec.name}'s weights do not hold {listed}, which {cls} needs: random numbers would take its place. The "
        f"files are not whole, or config.json is of another model.{tied}"
    )


def _output_of(model: Any) -> str:
    layer = model.get_output_embeddings()
    return next(
        (f"{name}.weight" for name, module in model.named_modules() if module is layer),
        "lm_head.weight",
    )


def _refuse_left_out(model: nn.Module, unexpected: Collection[str], spec: Model) -> None:
    modules = dict(model.named_modules())
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    names = sorted(name for name in unexpected if not _LEFTOVER.search(name))
    dropped = [
        name for name in names if any(_has_place(n, modules, prefix) for n in (name, prefix + name))
    ]
    if dropped and not _COUNTS & set(spec.config):
        raise ModelError(
            f"{spec.name}'s weights hold {len(dropped)} tensors that the model has no place for by its configuration "
            f"(the first: {dropped[0]}): trained numbers would be left out. Correct config.json (the number of layers, "
            "the architecture); to leave layers out on purpose, set their number in model.config."
        )
    if unused := [name for name in names if _LAYER.search(name)]:
        _say_once(
            f"{spec.name}: {len(unused)} tensors have no place in {type(model).__name__} and are not used, such as "
            f"{unused[0]}"
        )


def _has_place(name: str, modules: Mapping[str, nn.Module], prefix: str) -> bool:
    """Whether the model has the list of blocks that the tensor belongs to, or in its body the very layer."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.isdigit() and isinstance(modules.get(".".join(parts[:i])), nn.ModuleList):
            return True
    parent = modules.get(".".join(parts[:-1]))
    leaf = parent is not None and not any(True for _ in parent.children())
    return leaf and name.startswith(prefix) and parts[-1] in ("weight", "bias")


@cache
def _say_once(text: str) -> None:
    log.warning(text)
