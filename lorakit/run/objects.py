"""From a recipe to a model with its method on, and to the examples that it is trained and scored on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import nn

from lorakit.batches import Encoded, encode, encode_prompts, refuse_too_long
from lorakit.errors import DataError, RecipeError
from lorakit.evaluate.predict import generate, predict_logits
from lorakit.methods import Attachment
from lorakit.models._load import Base
from lorakit.nn.freeze import count
from lorakit.recipe.schema import Recipe
from lorakit.report.result import Counts
from lorakit.tasks import Data, Example, Head, Prediction, Task

log = logging.getLogger(__name__)

Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Answer:
    """What the model said to one example. output: logits, or the raw text."""

    id: str
    prediction: Prediction
    reference: Prediction | list[str] | None
    output: list[float] | str
    text: str

    def line(self) -> dict[str, Any]:
        """As a line of predictions.jsonl."""
        key = "references" if isinstance(self.reference, list) else "reference"
        return {"id": self.id, "prediction": self.prediction, key: self.reference, "output": self.output}


class Examiner:
    """Asks a model the examples of some splits, and scores its answers."""

    def __init__(self, recipe: Recipe, tokenizer: Any, config: Any, splits: Mapping[str, Sequence[Example]]):
        refuse_too_long(recipe.data, tokenizer, config)
        self.task, self.settings, self.data, self.tokenizer = recipe.task, recipe.evaluate, recipe.data, tokenizer
        self.decode = recipe.decode
        self.splits = {split: list(examples) for split, examples in splits.items()}
        self.encoded = {split: self._encode(examples) for split, examples in self.splits.items()}

    def _encode(self, examples: Sequence[Example]) -> list[Encoded]:
        if self.task.head is Head.CAUSAL:
            return encode_prompts(examples, self.tokenizer, self.data.max_length - self.decode.max_new_tokens)
        return encode(examples, self.tokenizer, self.task.head, self.data)

    def answers(self, model: nn.Module, split: str, only: Sequence[int] | None = None) -> list[Answer]:
        """In the order of the split; `only` these example numbers, if given."""
        chosen = list(range(len(self.splits[split]))) if only is None else list(only)
        items = [self.encoded[split][i] for i in chosen]
        size = self.settings.batch_size
        outputs: Sequence[Any]
        if self.task.head is Head.CAUSAL:
            outputs = generate(model, items, self.tokenizer, size, self.decode)
        else:
            outputs = predict_logits(model, items, self.task.head, self.tokenizer.pad_token_id, size)
        return [self._answer(self.splits[split][i], output) for i, output in zip(chosen, outputs, strict=True)]

    def _answer(self, example: Example, output: Any) -> Answer:
        hidden = example.target is None and not example.references
        reference = None if hidden else self.task.to_reference(example)
        text = example.text if example.pair is None else f"{example.text} [SEP] {example.pair}"
        return Answer(example.id, self.task.to_prediction(output), reference, output, text)

    def score(self, answers: Sequence[Answer]) -> dict[str, float]:
        references: list[Any] = [answer.reference for answer in answers]
        if any(reference is None for reference in references):
            raise DataError("these examples have no answers to compare with; they can be predicted, not scored")
        return self.task.score([answer.prediction for answer in answers], references)

    def scores(self, model: nn.Module, most: int | None = None) -> Scores:
        """split -> metric -> value; on at most `most` examples of a split, evenly spread over it."""
        return {split: self.score(self.answers(model, split, self.spread(split, most))) for split in self.splits}

    def spread(self, split: str, most: int | None) -> list[int] | None:
        n = len(self.splits[split])
        return None if most is None or n <= most else [i * n // most for i in range(most)]


def read_splits(task: Task, data: Data, splits: Sequence[str]) -> dict[str, list[Example]]:
    """The rows of each split; DataError for an empty one, a line in the log for one of unofficial size."""
    found = {}
    for split in splits:
        found[split] = task.read(split, data)
        if not found[split]:
            raise DataError(f"{task.name}: the split {split} is empty")
        official = task.expected_rows().get(split)
        if official is not None and split not in data.limit and len(found[split]) != official:
            log.warning("%s %s has %d rows, officially %d", task.name, split, len(found[split]), official)
    return found


def attach(recipe: Recipe, base: Base) -> Attachment:
    """The recipe's method on the model. RecipeError where `expect` says other counts."""
    attachment = recipe.method.attach(base.model, base.roles, base.fresh)
    counts = counts_of(attachment)
    for what, wanted, found in (
        ("sites", recipe.expect.sites, counts.sites),
        ("trainable", recipe.expect.trainable, counts.trainable),
    ):
        if wanted is not None and wanted != found:
            sites = ", ".join(site.name for site in attachment.sites[:4])
            raise RecipeError(
                f"expect.{what} is {wanted}, and the method gives {found} (sites: {sites or 'none'} ...). "
                f"Mend method.targets or method.r, or remove the expectation with `~expect.{what}`."
            )
    return attachment


def counts_of(attachment: Attachment) -> Counts:
    """As the paper counts: the head that the checkpoint did not hold is on a line of its own."""
    trained = attachment.trained()
    fresh = sum(p.numel() for name, p in trained.items() if name in attachment.fresh)
    trainable = sum(p.numel() for p in trained.values()) - fresh
    ours = {name for name, _ in attachment.model.named_parameters() if ".delta." in name}
    total = sum(p.numel() for p in attachment.model.parameters()) - count(attachment.model, ours)
    return Counts(sites=len(attachment.sites), trainable=trainable, fresh=fresh, total=total)


def training_set(recipe: Recipe, examples: Sequence[Example], tokenizer: Any) -> list[Encoded]:
    return encode(examples, tokenizer, recipe.task.head, recipe.data)


def precision_of(wanted: str) -> str:
    """accelerate's word for `train.precision`."""
    import torch

    if wanted == "auto":
        return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
    return "no" if wanted == "fp32" else wanted


def autocast(accelerator: Any) -> AbstractContextManager[None]:
    return accelerator.autocast() if accelerator.mixed_precision != "no" else nullcontext()
