"""From a recipe to a model with its method, and to the examples for training and scoring."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from lorakit.bases.base import DTYPES, Base
from lorakit.batches import (
    Encoded,
    TokenRows,
    encode_cached,
    encode_prompts,
    end_of_turn,
    refuse_no_padding,
    refuse_too_long,
)
from lorakit.errors import ModelError, RecipeError
from lorakit.evaluation.answers import Answer, Scores, score_answers, untrained_most, writes
from lorakit.evaluation.likelihood import log_likelihoods
from lorakit.evaluation.predict import Generated, GenerationSettings, generate, predict_logits
from lorakit.evaluation.spans import predict_spans, text_of
from lorakit.evaluation.token_loss import token_losses
from lorakit.events import Observer, TextsGenerated
from lorakit.methods import Attachment
from lorakit.metrics import Failed
from lorakit.nn.freeze import count
from lorakit.nn.linear import numbers_in
from lorakit.recipe.schema import Recipe
from lorakit.runs.generations import PartialPredictions
from lorakit.runs.result import Counts
from lorakit.runs.sources import read_sources, take_sources
from lorakit.tasks import Example, Head, Task


@dataclass(frozen=True)
class TextReader:
    """A base without its model: as much as encoding examples needs."""

    tokenizer: Any
    config: Any


class Examiner:
    """Asks a model the examples of some splits, and scores its answers.

    attachment: the method on the model, so that texts are generated from merged weights, which is
    faster. observe: told how far the generation of a split is. seed: for answers that are drawn
    (decode.sample). `failed`: metric -> why it could not be computed.
    """

    def __init__(
        self,
        recipe: Recipe,
        base: Base | TextReader,
        splits: Mapping[str, Sequence[Example]],
        attachment: Attachment | None = None,
        observe: Observer | None = None,
        seed: int = 0,
    ):
        tokenizer = base.tokenizer
        refuse_too_long(recipe.data, tokenizer, base.config)
        refuse_no_padding(tokenizer)
        self.recipe = recipe
        self.task = recipe.task
        self.tokenizer = tokenizer
        self.attachment = attachment
        self.observe = observe
        self.failed: Failed = {}
        self.splits = {split: list(examples) for split, examples in splits.items()}
        self.generation = GenerationSettings(
            recipe.decode,
            recipe.evaluate.batch_size,
            seed,
            stops_of(recipe.task, tokenizer, self.splits),
        )
        self.choices = [
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in recipe.task.choices
        ]
        self.encoded = {split: self._encode(examples) for split, examples in self.splits.items()}
        for split, examples in self.splits.items():
            self.splits[split] = kept(examples, self.encoded[split])
        self.learned = {split: self._learned(examples) for split, examples in self.splits.items()}

    def _encode(self, examples: Sequence[Example]) -> TokenRows:
        if self.task.head is not Head.CAUSAL:
            return encode_cached(examples, self.tokenizer, self.task.head, self.recipe.data)
        most = self.recipe.data.max_length
        if writes(self.task):
            answer = self.recipe.decode.max_new_tokens
            room_is = f"data.max_length {most} - decode.max_new_tokens {answer}"
        else:
            answer = max(map(len, self.choices))
            room_is = f"data.max_length {most} - {answer} tokens of an answer"
        drops = self.recipe.data.dropped_causes
        return encode_prompts(examples, self.tokenizer, most - answer, drops, room_is)

    def _learned(self, examples: Sequence[Example]) -> _Learned | None:
        """What training would learn of the examples; None where that is hidden, or where the head
        is not causal."""
        if self.task.head is not Head.CAUSAL or any(e.target is None for e in examples):
            return None
        flat = [one for example in examples for one in self.task.learned(example)]
        rows = encode_cached(flat, self.tokenizer, self.task.head, self.recipe.data)
        numbers: dict[str, list[int]] = {example.id: [] for example in examples}
        for row, owner in enumerate(rows.owners.tolist()):
            numbers[flat[owner].id].append(row)
        return _Learned(rows, numbers)

    def answers(
        self,
        model: nn.Module,
        split: str,
        only: Sequence[int] | None = None,
        kept: PartialPredictions | None = None,
    ) -> list[Answer]:
        """The answers to a split, in its order, with the loss of each one's references.

        only: numbers of examples; None: all. kept: where texts are saved as they come; those that
        are there are not generated again.
        """
        chosen = range(len(self.splits[split])) if only is None else only
        answers = self._answers(model, split, chosen, kept)
        return self._with_losses(model, split, chosen, answers)

    def _answers(
        self, model: nn.Module, split: str, chosen: Sequence[int], kept: PartialPredictions | None
    ) -> list[Answer]:
        if writes(self.task):
            return self._written(model, split, chosen, kept)
        examples = self.splits[split]
        items = _rows(self.encoded[split], chosen)
        size = self.recipe.evaluate.batch_size
        pad = self.tokenizer.pad_token_id
        if self.task.head is Head.SPANS:
            return self._spans(model, split, chosen)
        if self.choices:
            outputs = log_likelihoods(model, items, self.choices, pad, size)
        else:
            outputs = predict_logits(model, items, self.task.head, pad, size)
        return [self._answer(examples[i], out) for i, out in zip(chosen, outputs, strict=True)]

    def _with_losses(
        self, model: nn.Module, split: str, chosen: Sequence[int], answers: list[Answer]
    ) -> list[Answer]:
        learned = self.learned[split]
        if learned is None:
            return answers
        own = [learned.numbers[self.splits[split][i].id] for i in chosen]
        items = _rows(learned.rows, [row for several in own for row in several])
        size = self.recipe.evaluate.batch_size
        nats = iter(token_losses(model, items, self.tokenizer.pad_token_id, size))
        found = []
        for several, answer in zip(own, answers, strict=True):
            total = math.fsum(next(nats) for _ in several)
            tokens = sum(learned.rows[row].trained for row in several)
            found.append(replace(answer, nats=total, tokens=tokens))
        return found

    def _spans(self, model: nn.Module, split: str, chosen: Sequence[int]) -> list[Answer]:
        """The answers whose text is a part of the context, which may have several windows."""
        task: Any = self.task  # these fields are those of tasks with this head
        windows: dict[str, list[Encoded]] = {}
        for item in self.encoded[split]:
            windows.setdefault(item.id, []).append(item)
        examples = [self.splits[split][i] for i in chosen]
        items = [item for example in examples for item in windows[example.id]]
        size, pad = self.recipe.evaluate.batch_size, self.tokenizer.pad_token_id
        spans = iter(predict_spans(model, items, pad, size, task.max_answer_tokens))
        answers = []
        for example in examples:
            own = [next(spans) for _ in windows[example.id]]
            text = text_of(example.pair or "", own, task.unanswerable)
            answers.append(self._answer(example, text))
        return answers

    def _written(
        self, model: nn.Module, split: str, chosen: Sequence[int], kept: PartialPredictions | None
    ) -> list[Answer]:
        examples = self.splits[split]
        found: dict[str, Answer] = {}
        if kept is not None:
            for example in examples:
                if line := kept.known.get(example.id):
                    found[example.id] = self._answer(
                        example, line["output"], line.get("ended", True)
                    )
        asked = [i for i in chosen if examples[i].id not in found]

        def answers_of(numbers: Sequence[int], texts: Sequence[Generated]) -> list[Answer]:
            return [
                self._answer(examples[asked[n]], text.text, text.ended)
                for n, text in zip(numbers, texts, strict=True)
            ]

        start = time.perf_counter()
        done = 0

        def on_batch(numbers: Sequence[int], texts: Sequence[Generated], total: int) -> None:
            nonlocal done
            done += len(numbers)
            if kept is not None:
                kept.add(answer.line() for answer in answers_of(numbers, texts))
            if self.observe is not None:
                self.observe(TextsGenerated(split, done, total, time.perf_counter() - start))

        merged = self.attachment.folded() if self.attachment is not None else nullcontext()
        with merged:
            items = _rows(self.encoded[split], asked)
            texts = generate(model, items, self.tokenizer, self.generation, on_batch)
        found |= {answer.id: answer for answer in answers_of(range(len(asked)), texts)}
        return [found[examples[i].id] for i in chosen]

    def _answer(self, example: Example, output: Any, ended: bool = True) -> Answer:
        reference = None
        if example.target is not None or example.references:
            reference = self.task.to_reference(example)
        text = example.text
        if example.pair is not None:
            text += f" [SEP] {example.pair}"
        return Answer(
            id=example.id,
            prediction=self.task.to_prediction(output),
            reference=reference,
            output=output,
            text=text,
            group=example.group,
            ended=ended,
        )

    def scores(self, answers: Mapping[str, Sequence[Answer]]) -> Scores:
        """split -> metric -> value"""
        return {split: score_answers(self.task, own, self.failed) for split, own in answers.items()}

    def untrained(self, model: nn.Module, splits: Sequence[str]) -> Scores:
        """split -> metric -> value, on `untrained_most` examples, evenly spread over the split.

        The model is one before training, or without its adapter.
        """
        answers = {}
        for split in splits:
            n = len(self.splits[split])
            most = min(n, untrained_most(self.task))
            only = [i * n // most for i in range(most)]
            answers[split] = self.answers(model, split, only)
        return self.scores(answers)


@dataclass(frozen=True)
class _Learned:
    """What training would learn of the examples of a split. numbers: example id -> of its rows."""

    rows: TokenRows
    numbers: dict[str, list[int]]


def _rows(encoded: TokenRows, chosen: Sequence[int]) -> Sequence[Encoded]:
    """Some encoded examples; they are not unpacked where all of them are chosen."""
    if len(chosen) == len(encoded) and all(i == n for n, i in enumerate(chosen)):
        return encoded
    return [encoded[i] for i in chosen]


def kept(examples: Sequence[Example], encoded: TokenRows) -> list[Example]:
    """The examples that were encoded: all, or those that data.too_long and data.empty leave."""
    owners = sorted(set(encoded.owners.tolist()))
    return list(examples) if len(owners) == len(examples) else [examples[i] for i in owners]


def stops_of(task: Task, tokenizer: Any, splits: Mapping[str, Sequence[Example]]) -> list[int]:
    """Tokens that end a text besides the tokenizer's own. A stop mark of several tokens is not
    among them: the text is cut there afterwards."""
    marks = [tokenizer(mark, add_special_tokens=False)["input_ids"] for mark in task.stops]
    stops = [ids[0] for ids in marks if len(ids) == 1]
    if any(example.turns for examples in splits.values() for example in examples):
        stops += end_of_turn(tokenizer)
    return stops


def attach(recipe: Recipe, base: Base) -> Attachment:
    """The recipe's method on the model.

    RecipeError: `expect` has other counts. ModelError: the method could never be merged, or there
    is no room for its tokens.
    """
    method = recipe.method
    sources = read_sources(method, base.model, base.roles)
    attachment = method.attach(base.model, base.roles, base.newly_initialised | base.head)
    take_sources(attachment, sources)
    if method.added_tokens:
        refuse_too_long(recipe.data, None, base.config, method.added_tokens)
        if recipe.data.packing:
            raise ModelError(
                f"data.packing: {method.name} puts tokens before every prompt; leave packing out"
            )
    # Otherwise the proof of merging would fail after all the training.
    if method.merges and (why := attachment.why_unmergeable()):
        raise ModelError(why)
    _refuse_other_counts(recipe, attachment)
    return attachment


def _refuse_other_counts(recipe: Recipe, attachment: Attachment) -> None:
    counts = counts_of(attachment)
    for what in ("sites", "trainable"):
        wanted = getattr(recipe.expect, what)
        found = getattr(counts, what)
        if wanted is not None and wanted != found:
            sites = ", ".join(site.name for site in attachment.sites[:4])
            raise RecipeError(
                f"expect.{what} is {wanted}, and the method gives {found} (sites: "
                f"{sites or 'none'} ...). Correct method.targets or method.r, or remove the "
                f"expectation with `~expect.{what}`."
            )


def counts_of(attachment: Attachment) -> Counts:
    """As the paper counts: newly initialised parameters are not among `trainable`."""
    trained = attachment.trained()
    newly_initialised = sum(
        p.numel() for name, p in trained.items() if name in attachment.newly_initialised
    )
    model = attachment.model
    deltas = {name for name, _ in model.named_parameters() if ".delta." in name}
    return Counts(
        sites=len(attachment.sites),
        trainable=sum(p.numel() for p in trained.values()) - newly_initialised,
        fresh=newly_initialised,
        total=sum(numbers_in(p) for p in model.parameters()) - count(model, deltas),
    )


def resolve_precision(recipe: Recipe) -> Recipe:
    """The recipe with the precision that `train.precision: auto` means on this machine.

    With fast bf16, frozen weights are kept in bf16; weights that train stay in fp32, and their
    products are formed in bf16.
    """
    if recipe.train.precision != "auto":
        return recipe
    is_plain = recipe.model.dtype == "fp32" and recipe.model.quantize is None
    is_frozen = recipe.method.freezes_base and not recipe.model.new_tokens
    precision = "fp32"
    model = recipe.model
    if is_plain and has_bf16():
        if is_frozen:
            model = model.model_copy(update={"dtype": "bf16"})
        else:
            precision = "bf16"
    train = recipe.train.model_copy(update={"precision": precision})
    return recipe.model_copy(update={"train": train, "model": model})


def has_bf16() -> bool:
    """Whether this machine multiplies bf16 faster than fp32, and not by emulation."""
    if torch.cuda.is_available() and os.environ.get("LORAKIT_CPU") != "1":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def precision_of(recipe: Recipe) -> str:
    """accelerate's word for a precision from `resolve_precision`."""
    return "no" if recipe.train.precision == "fp32" else recipe.train.precision


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[Any]:
    """The precision from `resolve_precision`, so that a run is scored in the same one while it
    trains and afterwards."""
    precision = recipe.train.precision
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, DTYPES[precision])
