"""Log-likelihoods of given texts, such as the choices of a classification, after a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lorakit.batches import Encoded, collate
from lorakit.evaluation.predict import outputs_in_order
from lorakit.evaluation.strategy import ignores_right_padding, read_together
from lorakit.nn.logits import last_logits
from lorakit.nn.prompt import prompt_ends
from lorakit.tasks import Head

Fields = dict[str, Tensor]
Stem = tuple[int, ...]
"""The tokens of a choice but the last: choices with one stem share a forward pass."""


@dataclass(frozen=True)
class _Sequence:
    """A prompt followed by a stem."""

    encoded: Encoded
    stem: Stem

    @property
    def length(self) -> int:
        return self.encoded.length

    @property
    def start(self) -> int:
        """The position whose logits predict the first token of the choice."""
        return self.length - len(self.stem) - 1


def log_likelihoods(
    model: nn.Module,
    prompts: Sequence[Encoded],
    choices: Sequence[Sequence[int]],
    pad_id: int,
    batch_size: int,
) -> list[list[float]]:
    """log p(choice | prompt) in nats for every prompt and choice, summed over the choice's tokens.

    choices: token ids, at least one each. Choices that differ in their last token only, such as
    all choices of one token, share a forward pass. batch_size: sequences at a time.
    """
    wanted = [tuple(choice) for choice in choices]
    stems = list(dict.fromkeys(choice[:-1] for choice in wanted))
    sequences = [_followed(prompt, stem) for prompt in prompts for stem in stems]

    def outputs(
        batch: Sequence[_Sequence], device: torch.device
    ) -> list[dict[tuple[int, ...], float]]:
        """The log-likelihoods of the choices with each sequence's stem."""
        fields = collate([one.encoded for one in batch], Head.CLASSIFICATION, pad_id)
        found: list[dict[tuple[int, ...], float]] = [{} for _ in batch]
        for row, log_p in _log_probabilities(model, batch, fields, device):
            for choice in wanted:
                if choice[:-1] == batch[row].stem:
                    terms = [log_p[place, token] for place, token in enumerate(choice)]
                    found[row][choice] = float(sum(terms))
        return found

    found = outputs_in_order(model, sequences, batch_size, outputs)
    result = []
    for start in range(0, len(found), len(stems)):
        known = {k: v for part in found[start : start + len(stems)] for k, v in part.items()}
        result.append([known[choice] for choice in wanted])
    return result


def _followed(prompt: Encoded, stem: Stem) -> _Sequence:
    ids = [*prompt.inputs["input_ids"], *stem]
    inputs = {"input_ids": ids, "attention_mask": [1] * len(ids)}
    return _Sequence(Encoded(prompt.id, inputs, None), stem)


def _log_probabilities(
    model: nn.Module, batch: Sequence[_Sequence], fields: Fields, device: torch.device
) -> Iterator[tuple[int, Tensor]]:
    """The number of each sequence, and (tokens of the stem + 1, vocabulary), from the first token
    of its choices on."""
    fields = {name: value.to(device) for name, value in fields.items()}
    ids, mask = fields["input_ids"], fields["attention_mask"]
    # the model itself, and not the wrapper of several processes
    plain: Any = getattr(model, "module", model)
    pads = bool(mask.all()) or ignores_right_padding(plain, ids, mask)
    all_starts = torch.tensor([sequence.start for sequence in batch], device=device)
    for rows, length in read_together(mask, pads):
        starts = all_starts[rows]
        own = {name: value[rows, :length] for name, value in fields.items()}
        first = int(starts.min())
        logits = last_logits(model, own | prompt_ends(model, starts + 1), length - first)
        for row, start, scores in zip(rows.tolist(), starts.tolist(), logits, strict=True):
            at = start - first
            yield row, scores[at : at + len(batch[row].stem) + 1].float().log_softmax(-1)
