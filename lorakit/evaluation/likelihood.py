"""Log-likelihoods of given texts, such as the choices of a classification, after a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lorakit.batches import Encoded, collate
from lorakit.evaluation.predict import outputs_in_order
from lorakit.evaluation.strategy import ignores_right_padding, rows_by_length
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
    by_stem: dict[Stem, list[int]] = {}
    for number, choice in enumerate(choices):
        by_stem.setdefault(tuple(choice[:-1]), []).append(number)
    of_stem = {stem: [choices[n] for n in numbers] for stem, numbers in by_stem.items()}
    sequences = [_followed(prompt, stem) for prompt in prompts for stem in by_stem]

    def outputs(batch: Sequence[_Sequence], device: torch.device) -> list[list[float]]:
        fields = collate([one.encoded for one in batch], Head.CLASSIFICATION, pad_id)
        on_device = {name: value.to(device) for name, value in fields.items()}
        return _of_batch(model, batch, on_device, of_stem)

    found = iter(outputs_in_order(model, sequences, batch_size, outputs))
    result = []
    for _ in prompts:
        values = [0.0] * len(choices)
        for numbers in by_stem.values():
            for number, value in zip(numbers, next(found), strict=True):
                values[number] = value
        result.append(values)
    return result


def _followed(prompt: Encoded, stem: Stem) -> _Sequence:
    ids = [*prompt.inputs["input_ids"], *stem]
    inputs = {"input_ids": ids, "attention_mask": [1] * len(ids)}
    return _Sequence(Encoded(prompt.id, inputs, None), stem)


def _of_batch(
    model: nn.Module,
    batch: Sequence[_Sequence],
    fields: Fields,
    choices: Mapping[Stem, Sequence[Sequence[int]]],
) -> list[list[float]]:
    """The log-likelihoods of each sequence's choices."""
    found: dict[int, list[float]] = {}
    for rows, own in _read_together(model, fields):
        sequences = [batch[row] for row in rows]
        for row, sequence, log_p in zip(
            rows, sequences, _log_probabilities(model, sequences, own), strict=True
        ):
            found[row] = [
                float(sum(log_p[place, token] for place, token in enumerate(choice)))
                for choice in choices[sequence.stem]
            ]
    return [found[row] for row in range(len(batch))]


def _log_probabilities(
    model: nn.Module, sequences: Sequence[_Sequence], fields: Fields
) -> Iterator[Tensor]:
    """For each sequence (tokens of the stem + 1, vocabulary), from the first token of its choices
    on."""
    first = min(sequence.start for sequence in sequences)
    starts = torch.tensor([s.start for s in sequences], device=fields["input_ids"].device)
    fields = fields | prompt_ends(model, starts + 1)
    logits = last_logits(model, fields, fields["input_ids"].shape[1] - first)
    for row, sequence in enumerate(sequences):
        at = sequence.start - first
        yield logits[row, at : at + len(sequence.stem) + 1].float().log_softmax(-1)


def _read_together(model: nn.Module, fields: Fields) -> Iterator[tuple[list[int], Fields]]:
    """Row numbers of a batch and their fields: all rows at once, or those of one length where the
    model sees padding."""
    ids, mask = fields["input_ids"], fields["attention_mask"]
    # the model itself, and not the wrapper of several processes
    plain = getattr(model, "module", model)
    if mask.all() or ignores_right_padding(plain, ids, mask):  # type: ignore[arg-type]
        yield list(range(len(ids))), fields
        return
    for rows in rows_by_length(mask):
        length = int(mask[rows[0]].sum())
        yield rows.tolist(), {name: value[rows, :length] for name, value in fields.items()}
