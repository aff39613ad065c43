"""Losses of single examples, and the texts of a file, for analyses that compute with the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorakit.bases.base import Base
from lorakit.batches import IGNORE, Encoded, collate
from lorakit.batches.positions import most_tokens
from lorakit.errors import InputError
from lorakit.tasks import Head

MAX_TOKENS = 512
"""Tokens of a text that are read, if the model takes as many; the rest of a longer one is left
out."""
BATCH_EXAMPLES = 8


@dataclass(frozen=True)
class ExampleLoss:
    """The loss of one example, in nats."""

    total: float
    """-log p of the label, or of the trained tokens together."""
    terms: int
    """The number of labels or tokens."""
    right: int
    """Those that the model finds most likely."""


def read_texts(file: Path | None) -> list[str]:
    """The lines of a file that are not empty. InputError: it cannot be read, or has none."""
    assert file is not None  # an analysis that needs a text is not asked without one
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--text {file}: it cannot be read as UTF-8 text: {error}") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise InputError(f"--text {file}: it holds no text; give a file with a text on each line")
    return found


def token_ids(base: Base, texts: Sequence[str]) -> list[list[int]]:
    """The first token ids of each text, at most MAX_TOKENS and as many as the model takes."""
    most = min(most_tokens(base.config) or MAX_TOKENS, MAX_TOKENS)
    return [base.tokenizer(text)["input_ids"][:most] for text in texts]


def encode_texts(base: Base, texts: Sequence[str]) -> list[Encoded]:
    """Texts as examples whose tokens are all trained. Texts of a single token are left out."""
    found = []
    for number, ids in enumerate(token_ids(base, texts)):
        if len(ids) > 1:
            inputs = {"input_ids": ids, "attention_mask": [1] * len(ids)}
            found.append(Encoded(str(number), inputs, None, trains=ids))
    if not found:
        raise InputError("--text: every line is a single token, and none has a next one")
    return found


@torch.no_grad()
def example_losses(
    model: nn.Module, items: Sequence[Encoded], head: Head, pad_id: int
) -> list[ExampleLoss]:
    """The loss of each example, in the order of `items`; the model is in evaluation mode.

    head: classification or causal.
    """
    device = next(model.parameters()).device
    # examples of similar length together: less padding to compute
    order = sorted(range(len(items)), key=lambda number: items[number].length)
    found: dict[int, ExampleLoss] = {}
    for start in range(0, len(items), BATCH_EXAMPLES):
        numbers = order[start : start + BATCH_EXAMPLES]
        batch = collate([items[number] for number in numbers], head, pad_id)
        batch = {name: value.to(device) for name, value in batch.items()}
        labels = batch.pop("labels")
        losses = _losses(model(**batch).logits.float(), labels, head)
        found |= dict(zip(numbers, losses, strict=True))
    return [found[number] for number in range(len(items))]


def _losses(logits: Tensor, labels: Tensor, head: Head) -> list[ExampleLoss]:
    if head is not Head.CAUSAL:
        totals = F.cross_entropy(logits, labels, reduction="none")
        terms = torch.ones_like(labels)
        hits = logits.argmax(-1) == labels
        return _each(totals, terms, hits)
    wanted = labels[:, 1:]
    each = F.cross_entropy(
        logits[:, :-1].transpose(1, 2), wanted, reduction="none", ignore_index=IGNORE
    )
    hits = (logits[:, :-1].argmax(-1) == wanted).sum(1)
    return _each(each.sum(1), (wanted != IGNORE).sum(1), hits)


def _each(totals: Tensor, terms: Tensor, hits: Tensor) -> list[ExampleLoss]:
    columns = totals.tolist(), terms.tolist(), hits.long().tolist()
    return [ExampleLoss(*values) for values in zip(*columns, strict=True)]
