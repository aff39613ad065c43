"""A checkpoint to a base model: the transformers class for the head, the tokenizer, the roles, and what is newly initialised.

Weights are read from safetensors only, and no code of the checkpoint is run unless the command says so (`_trust`).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lorakit.errors import LorakitError, ModelError
from lorakit.fast import Fast, make_fast
from lorakit.models import Model, family_of
from lorakit.models._files import first_line, location, no_config, not_loaded
from lorakit.models._numbers import refuse_files_not_finite, refuse_not_finite
from lorakit.models._padding import fit_padding, pad_of, prove_padding
from lorakit.models._positions import refuse_shifted
from lorakit.models._quantized import dequantized, keep_trainable, quantization
from lorakit.models._refuse import refuse_unfit
from lorakit.models._trust import is_trusted
from lorakit.models._whole import newly_initialised_of, untied, what_loading_would_find
from lorakit.nn.select import Roles
from lorakit.nn.settings import setting, text_config
from lorakit.nn.tokens import add_rows

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

TASKS_OWN = ("num_labels", "id2label", "label2id", "problem_type")


@dataclass(frozen=True)
class Base:
    """A model before a method is put on it."""

    model: nn.Module
    tokenizer: Any
    """None where no tokenizer is at hand (`outline`)."""
    config: Any
    roles: Roles
    newly_initialised: frozenset[str]
    """Parameters that the checkpoint does not hold, so they start at random: they must be trained and saved."""
    name: str
    revision: str | None
    """The commit that the hub's revision resolved to; None for a local folder."""
    quantized: str | None = None
    """`int8` or `nf4`, where the linear layers are stored so."""
    head: frozenset[str] = frozenset()
    """Parameters of a head that the checkpoint does hold: a new task trains and saves them too."""

    def to(self, device: torch.device) -> None:
        """Move the model; a quantized one stands where it was loaded, on the GPU if there is one."""
        if self.quantized is None:
            self.model.to(device)


def load(spec: Model, head: str, labels: Sequence[str] = (), fast: Fast = "auto") -> Base:
    """The pretrained model for a head ("classification", "regression", "causal") and its tokenizer.

    fast: `train.fast`, whether it computes by `lorakit.fast`.
    ModelError: not available, no safetensors, a shape that the recipe does not expect, weights that do not fit, that
    are not whole or not finite, a base that is stored quantized.
    """
    config = _configure(read_config(spec), spec, head, labels)
    _refuse_other_shape(config, spec)
    refuse_unfit(config, spec)
    if spec.quantize is not None:
        refuse_files_not_finite(spec)
    cls = _model_class(head)
    try:
        model, info = cls.from_pretrained(
            location(spec.name),
            revision=spec.revision or "main",
            config=config,
            dtype=DTYPES[spec.dtype],
            use_safetensors=True,
            trust_remote_code=is_trusted(),
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **_quantized(spec, head, config),
        )
    except LorakitError:
        raise
    except Exception as error:  # transformers raises OSError, ValueError, SafetensorError and more
        raise not_loaded("the weights", spec, error) from error
    keep_trainable(model)
    if untied(model, info, spec):  # it begins as what it was tied to
        with torch.no_grad():
            model.get_output_embeddings().weight.copy_(model.get_input_embeddings().weight)
    newly_initialised = newly_initialised_of(model, info, spec, family_of(config.model_type), head)
    refuse_not_finite(model, spec)
    if head == "causal":
        _refuse_looking_ahead(model, spec.name)
    tokenizer = load_tokenizer(spec)
    _refuse_other_vocabulary(model, tokenizer)
    refuse_shifted(model, tokenizer, spec.name)
    fit_padding(model, tokenizer)
    if spec.new_tokens:
        newly_initialised |= add_rows(model, add_tokens(tokenizer, spec))
    if head != "causal":
        prove_padding(model, tokenizer, spec.name)
    family = family_of(model.config.model_type)
    make_fast(model, None if family is None else family.reads_first, fast)
    config = model.config
    roles, commit, held = (
        roles_of(config),
        _commit(config),
        held_head(model, head) - newly_initialised,
    )
    return Base(
        model, tokenizer, config, roles, newly_initialised, spec.name, commit, spec.quantize, held
    )


def load_dequantized(spec: Model, head: str, labels: Sequence[str] = ()) -> Base:
    """As `load`, with plain float32 layers that hold what the quantized ones stand for: what merging folds into."""
    base = load(spec, head, labels)
    if base.quantized is None:
        return base
    return replace(base, model=dequantized(base.model, torch.float32), quantized=None)


def _quantized(spec: Model, head: str, config: Any) -> dict[str, Any]:
    if spec.quantize is None:
        return {}
    shapes = _on_meta(_model_class(head), config)
    newly_initialised = _newly_initialised_by_architecture(
        shapes, config, read_config(spec)
    ) | held_head(shapes, head)
    return {
        "quantization_config": quantization(
            spec.quantize, DTYPES[spec.dtype], newly_initialised, shapes
        )
    }


def outline(spec: Model, head: str, labels: Sequence[str] = ()) -> Base:
    """The model's shapes on the meta device: no weights are read, and none are needed.

    The configuration is the checkpoint's where it is at hand, else the recipe's `model.shape`. Where the files of the
    weights are at hand, what their headers tell is refused as in `load`.
    """
    stored = read_config(spec, or_shape=True)
    config = _configure(copy.deepcopy(stored), spec, head, labels)
    refuse_unfit(config, spec)
    model = _on_meta(_model_class(head), config).to(
        DTYPES[spec.dtype]
    )  # the configuration has that of the files
    info = what_loading_would_find(model, config, spec)
    if info is None:
        newly_initialised = _newly_initialised_by_architecture(model, config, stored)
    else:
        newly_initialised = newly_initialised_of(
            model, info, spec, family_of(config.model_type), head
        )
    held = held_head(model, head) - newly_initialised
    if spec.new_tokens:
        size = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
        with torch.device("meta"):
            newly_initialised |= add_rows(model, range(size, size + len(spec.new_tokens)))
    return Base(
        model, None, config, roles_of(config), newly_initialised, spec.name, None, None, held
    )


def random_base(
    spec: Model,
    head: str,
    labels: Sequence[str] = (),
    layers: int | None = None,
    dropout: float | None = None,
) -> nn.Module:
    """The model's shape with random float32 weights, to measure time and memory with, which do not depend on them.

    layers: how many, if not all. dropout: every rate of the configuration, if not its own.
    """
    config = _configure(
        config_of_shape(spec) if spec.shape else read_config(spec), spec, head, labels
    )
    if layers is not None:
        text_config(config).num_hidden_layers = layers
    for name in [
        n for n in vars(config) if dropout is not None and ("dropout" in n or n.endswith("pdrop"))
    ]:
        if isinstance(getattr(config, name), (int, float)):
            setattr(config, name, dropout)
    if setting(config, "pad_token_id") is None:
        config.pad_token_id = 0
    return _model_class(head).from_config(
        config, dtype=torch.float32, trust_remote_code=is_trusted()
    )


def read_config(spec: Model, or_shape: bool = False) -> Any:
    """The transformers configuration of the checkpoint (or, if allowed and it cannot be had, of `model.shape`)."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(
            location(spec.name), revision=spec.revision or "main", trust_remote_code=is_trusted()
        )
    except ModelError:
        raise
    except Exception as error:  # OSError, ValueError, huggingface_hub's and httpx's own: all mean that it is not available
        if or_shape and spec.shape:
            log.info("%s is not at hand: shapes are taken from the recipe", spec.name)
            return config_of_shape(spec)
        raise no_config(spec, error) from error


def config_of_shape(spec: Model) -> Any:
    from transformers import AutoConfig

    shape = dict(spec.shape)
    try:
        return AutoConfig.for_model(shape.pop("model_type"), **shape)
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(
            f"model.shape does not describe an architecture: {first_line(error)}"
        ) from error


def load_tokenizer(spec: Model) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            location(spec.name), revision=spec.revision or "main", trust_remote_code=is_trusted()
        )
    except Exception as error:  # as in read_config
        raise not_loaded("the tokenizer", spec, error) from error
    _refuse_unusable(tokenizer, spec)
    if spec.chat_template is not None:
        try:
            tokenizer.chat_template = (
                Path(spec.chat_template).expanduser().read_text(encoding="utf-8")
            )
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(
                f"cannot read model.chat_template {spec.chat_template}: {error}"
            ) from error
        tokenizer.chat_template_file = spec.chat_template  # for messages about it
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = _pad_token(tokenizer, spec)
    return tokenizer


def _pad_token(tokenizer: Any, spec: Model) -> str | None:
    """Of a tokenizer that names none: the one that the model's head was made for, if it is a
    special token; or its end token."""
    known = pad_of(read_config(spec, or_shape=True))
    if known in tokenizer.all_special_ids:
        return tokenizer.convert_ids_to_tokens(known)
    return tokenizer.eos_token


def _refuse_unusable(tokenizer: Any, spec: Model) -> None:
    """Settings of a type that they cannot have are found where a text is read."""
    most = tokenizer.model_max_length
    if isinstance(most, bool) or not isinstance(most, (int, float)):
        raise ModelError(
            f"{spec.name}/tokenizer_config.json: model_max_length is {most!r}, and a number is expected"
        )
    try:
        tokenizer("a text", "another", truncation=True, max_length=8)
    except Exception as error:
        raise ModelError(
            f"the tokenizer of {spec.name} reads no text: {first_line(error)}"
        ) from error


def tokenizer_of(spec: Model) -> Any:
    """As `load` gives it, with the new tokens."""
    tokenizer = load_tokenizer(spec)
    if spec.new_tokens:
        add_tokens(tokenizer, spec)
    return tokenizer


def add_tokens(tokenizer: Any, spec: Model) -> list[int]:
    """Their ids, ascending. ModelError: one that the tokenizer has already."""
    known = [text for text in spec.new_tokens if text in tokenizer.get_vocab()]
    if (
        known
        or len(set(spec.new_tokens)) < len(spec.new_tokens)
        or not all(text.strip() for text in spec.new_tokens)
    ):
        shown = ", ".join(map(repr, known or spec.new_tokens))
        raise ModelError(
            f"model.new_tokens: {shown}: {'a token already' if known else 'each once, and none empty'}"
        )
    tokenizer.add_tokens(list(spec.new_tokens), special_tokens=False)
    return sorted(tokenizer.convert_tokens_to_ids(list(spec.new_tokens)))


def roles_of(config: Any) -> Roles:
    """The family's roles for this configuration; empty for an architecture that no family knows."""
    family = family_of(config.model_type)
    return {} if family is None else family.places(config)


def _model_class(head: str) -> Any:
    import transformers

    name = {
        "classification": "AutoModelForSequenceClassification",
        "regression": "AutoModelForSequenceClassification",
        "causal": "AutoModelForCausalLM",
    }[head]
    return getattr(transformers, name)


def _configure(config: Any, spec: Model, head: str, labels: Sequence[str]) -> Any:
    family = family_of(config.model_type)
    undeclared = family.settings if family else ()
    unknown = [key for key in spec.config if not hasattr(config, key) and key not in undeclared]
    if unknown:
        raise ModelError(
            f"model.config: {config.model_type} has no setting {', '.join(map(repr, unknown))}"
        )
    if own := [key for key in TASKS_OWN if key in spec.config]:
        raise ModelError(f"model.config: {own[0]} follows from the task; leave it out")
    for key, value in spec.config.items():
        setattr(config, key, value)
    if head == "classification":
        config.problem_type = "single_label_classification"
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: i for i, label in enumerate(labels)}
    elif head == "regression":
        config.problem_type, config.num_labels = "regression", 1
    return config


def _refuse_other_shape(config: Any, spec: Model) -> None:
    wrong = {
        k: (v, getattr(config, k, None))
        for k, v in spec.shape.items()
        if getattr(config, k, None) != v
    }
    if wrong:
        listed = ", ".join(
            f"{key} is {has!r}, the recipe's shape says {says!r}"
            for key, (says, has) in wrong.items()
        )
        raise ModelError(
            f"{spec.name} is not the model that this recipe was written for: {listed}. "
            "To use another base on purpose, remove the expectation with `~model.shape`."
        )


@torch.no_grad()
def _refuse_looking_ahead(model: nn.Module, name: str) -> None:
    """An encoder has a causal class too, and reads both ways in it: its loss falls, and it can write nothing."""
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]])
    try:
        first, second = (
            model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, :3].float()
        )
    except Exception as error:  # whatever a forward pass says to settings that do not go together
        raise ModelError(
            f"{name} ({type(model).__name__}) does not run: {first_line(error)}"
        ) from error
    if (first - second).abs().max() > 1e-2 * first.abs().max():
        raise ModelError(
            f"{name} ({type(model).__name__}) reads the tokens that follow, so it cannot learn to write them: it is an "
            "encoder. Give a causal model, such as GPT-2 or Llama."
        )


def held_head(model: nn.Module, head: str) -> frozenset[str]:
    """The parameters outside the body of a model for whole texts; none of a causal model."""
    names = [name for name, _ in model.named_parameters()]
    body = f"{getattr(model, 'base_model_prefix', '')}."
    if head == "causal" or not any(name.startswith(body) for name in names):
        return frozenset()
    return frozenset(name for name in names if not name.startswith(body))


def _newly_initialised_by_architecture(
    model: nn.Module, config: Any, stored: Any
) -> frozenset[str]:
    """What the class that was saved does not have, or has in another shape: both classes are built
    without weights.

    stored: the configuration as it was saved, with as many labels as its head has outputs.
    """
    import transformers

    own = [name for name, _ in model.named_parameters()]
    names = config.architectures
    saved: Any = (
        getattr(transformers, str(names[0]), None)
        if isinstance(names, (list, tuple)) and names
        else None
    )
    if not (isinstance(saved, type) and issubclass(saved, transformers.PreTrainedModel)):
        prefix = getattr(model, "base_model_prefix", "")
        outside = [n for n in own if not n.startswith(f"{prefix}.")] if prefix else []
        return frozenset(outside) if "Sequence" in type(model).__name__ else frozenset()
    held = {name: p.shape for name, p in _on_meta(saved, stored).named_parameters()}
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    shapes = {name: held.get(name, held.get(name.removeprefix(prefix))) for name in own}
    return frozenset(name for name, p in model.named_parameters() if shapes[name] != p.shape)


def _on_meta(cls: Any, config: Any) -> nn.Module:
    try:
        with torch.device("meta"):
            if hasattr(cls, "from_config"):
                return cls.from_config(config, trust_remote_code=is_trusted())
            return cls(config)
    except (
        Exception
    ) as error:  # whatever a constructor says to a size or a rate that it does not take
        raise ModelError(
            f"no {config.model_type} can be built from these settings: {first_line(error)}"
        ) from error


def _refuse_other_vocabulary(model: nn.Module, tokenizer: Any) -> None:
    rows = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    if len(tokenizer) > rows:
        raise ModelError(
            f"the tokenizer has {len(tokenizer)} tokens and the model embeds {rows}: they do not belong together"
        )


def _commit(config: Any) -> str | None:
    return getattr(config, "_commit_hash", None)
