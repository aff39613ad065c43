"""The token that batches are padded with, and the proof that a head does not read it.

A head on a decoder reads the last token that is not `config.pad_token_id`, one on XLNet the last
position; a batch that is padded with another token, or on the other side, gives it padding to read,
and a score that depends on the batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lorakit.errors import ModelError
from lorakit.nn.left_padding import pad_left

EXACT, ROUNDED = 1e-3, 0.1
"""Largest difference, relative to the largest logit, that other shapes of the same products may
cause: in float32, and in half precision or quantized. A head that reads padding is several times
above either."""


def pad_of(config: Any) -> int | None:
    """The padding token by the configuration; of a composite model by that of its text."""
    own = getattr(config.get_text_config(), "pad_token_id", None)
    return own if own is not None else getattr(config, "pad_token_id", None)


def fit_padding(model: Any, tokenizer: Any) -> None:
    """Make the configuration name the token that batches are padded with, where it names none or is
    asked for it.

    RoBERTa and its kin count positions from the token that they were built with: there it stays.
    """
    config, pad = model.config, tokenizer.pad_token_id
    known = pad_of(config)
    if pad is None or (known is not None and not _asks_config(model)):
        return
    for part in (config, config.get_text_config()):
        if getattr(part, "pad_token_id", None) != pad:
            part.pad_token_id = pad


def _asks_config(model: Any) -> bool:
    """Whether the head looks the padding token up in the configuration as it reads a batch."""
    code = getattr(inspect.unwrap(type(model).forward), "__code__", None)
    names = () if code is None else code.co_names
    return "Sequence" in type(model).__name__ and "pad_token_id" in names


def prove_padding(model: Any, tokenizer: Any, name: str) -> None:
    """Ask a few short rows alone and in one padded batch. ModelError: the logits are not the same,
    padded on either side. Where they are on the left only, rows are padded there from now on
    (`nn.left_padding`)."""
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"the tokenizer of {name} names neither a padding token nor an end token, so texts "
            "cannot be put in one batch; set pad_token in its tokenizer_config.json"
        )
    rows = probe_rows(model, tokenizer)
    allowed = EXACT if _is_exact(model) else ROUNDED
    if padding_gap(model, tokenizer, rows, name) <= allowed:
        tokenizer.padding_side = "right"  # as it is saved beside a merged model
        return
    handle = pad_left(model)
    gap = padding_gap(model, tokenizer, rows, name)
    if gap <= allowed:
        tokenizer.padding_side = "left"
        return
    handle.remove()
    gap = padding_gap(model, tokenizer, rows, name)
    raise ModelError(
        f"{name} ({type(model).__name__}) gives a text other logits alone than in a batch padded "
        f"with {tokenizer.pad_token!r} (token {tokenizer.pad_token_id}; config.json says "
        f"{pad_of(model.config)}): they differ by {gap:.2g} of the largest, and {allowed:g} is "
        "allowed. Its score would depend on the batch size; give a tokenizer and a configuration "
        "with the pad token that the model was trained with."
    )


def probe_rows(model: Any, tokenizer: Any) -> list[list[int]]:
    """Token ids of rows of different lengths, each as the tokenizer frames a text; one ends in the
    padding token, one has it in the middle, and the last is the longest."""
    special = {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    framed = tokenizer("a")["input_ids"]
    inside = [i for i, token in enumerate(framed) if token not in special]
    front, back = (framed[: inside[0]], framed[inside[-1] + 1 :]) if inside else (framed, [])
    if model.config.is_encoder_decoder and not back:
        back = [model.config.eos_token_id]  # where such a head reads
    size = min(len(tokenizer), model.get_input_embeddings().weight.shape[0])
    special.add(tokenizer.pad_token_id)
    plain = [i for i in range(size) if i not in special] or list(range(size))
    a, b, c, d, e, f, g, h = (plain[(2 * i + 1) * len(plain) // 16] for i in range(8))
    pad = tokenizer.pad_token_id
    texts = [[a, b, c], [d, e, f, pad], [g, pad, h, a, b], [h, g, f, e, d, c, b, a]]
    return [[*front, *text, *back] for text in texts]


@torch.no_grad()
def padding_gap(model: Any, tokenizer: Any, rows: Sequence[Sequence[int]], name: str) -> float:
    """The largest difference of a logit between each row alone and all in one batch, relative to
    the largest logit."""
    training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            alone = torch.cat([_logits(model, tokenizer, [row]) for row in rows[:-1]])
            together = _logits(model, tokenizer, rows)[:-1]
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        kind = type(model).__name__
        raise ModelError(f"{name} ({kind}) cannot read a batch of padded texts: {error}") from error
    finally:
        model.train(training)
    if not bool(alone.isfinite().all() and together.isfinite().all()):
        return 0.0  # weights that are not finite are named where they are looked at
    return float((alone - together).abs().max() / alone.abs().max().clamp(min=1e-12))


def _logits(model: Any, tokenizer: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """Float32 logits of one batch, padded on the right: (batch, outputs), on the CPU."""
    width = max(map(len, rows))
    filled = {
        "input_ids": [[*row, *[tokenizer.pad_token_id] * (width - len(row))] for row in rows],
        "attention_mask": [[1] * len(row) + [0] * (width - len(row)) for row in rows],
        "token_type_ids": [[0] * width for _ in rows],
    }
    device = next(model.parameters()).device
    fields = {
        name: torch.tensor(values, device=device)
        for name, values in filled.items()
        if name in tokenizer.model_input_names
    }
    return model(**fields).logits.float().cpu()


def _is_exact(model: nn.Module) -> bool:
    floats = {p.dtype for p in model.parameters() if p.is_floating_point()}
    whole = all(p.is_floating_point() for p in model.parameters())
    return whole and floats <= {torch.float32, torch.float64}
