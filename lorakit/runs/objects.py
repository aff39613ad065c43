"""From a recipe to a model with its method on, and to the examples that it is trained and scored on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from lorakit.batches import (
    Encoded,
    encode_once,
    encode_prompts,
    end_of_turn,
    refuse_no_padding,
    refuse_too_long,
)
from lorakit.errors import ModelError, RecipeError
from lorakit.evaluation.answers import Answer, Scores, score_answers, untrained_most, writes
from lorakit.evaluation.likelihood import log_likelihoods
from lorakit.evaluation.predict import Generated, generate, predict_logits
from lorakit.methods import Attachment
from lorakit.metrics import Failed
from lorakit.models._load import Base
from lorakit.nn.freeze import count
from lorakit.nn.linear import numbers_in
from lorakit.recipe.schema import Recipe
from lorakit.runs.generations import Kept
from lorakit.runs.result import Counts
from lorakit.tasks import Example, Head, Task

Observer = Callable[[dict[str, Any]], None]


class Examiner:
    """Asks a model the examples of some splits, and scores its answers.

    attachment: the method that is on the model; text is generated from merged weights, which is faster.
    observe: told how far the generation of a split is. seed: decides where answers are drawn (decode.sample).
    `failed` is what could not be computed: metric -> why.
    """

    def __init__(
        self,
        recipe: Recipe,
        tokenizer: Any,
        config: Any,
        splits: Mapping[str, Sequence[Example]],
        attachment: Attachment | None = None,
        observe: Observer | None = None,
        seed: int = 0,
    ):
        refuse_too_long(recipe.data, tokenizer, config)
        refuse_no_padding(tokenizer)
        self.recipe, self.task, self.tokenizer = recipe, recipe.task, tokenizer
        self.attachment, self.observe, self.seed = attachment, observe, seed
        self.failed: Failed = {}
        self.splits = {split: list(examples) for split, examples in splits.items()}
        self.stops = stops_of(recipe.task, tokenizer, self.splits)
        self.choices = [
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in recipe.task.choices
        ]
        self.encoded = {split: self._encode(examples) for split, examples in self.splits.items()}

    def _encode(self, examples: Sequence[Example]) -> list[Encoded]:
        if self.task.head is Head.CAUSAL:
            more = (
                self.recipe.decode.max_new_tokens
                if writes(self.task)
                else max(map(len, self.choices))
            )
            room = self.recipe.data.max_length - more
            return encode_prompts(examples, self.tokenizer, room)
        return encode_once(examples, self.tokenizer, self.task.head, self.recipe.data)

    def answers(
        self,
        model: nn.Module,
        split: str,
        only: Sequence[int] | None = None,
        kept: Kept | None = None,
    ) -> list[Answer]:
        """In the order of the split; `only` these example numbers, if given. kept: where texts are saved as they come,
        and what is there already is not asked again."""
        chosen = list(range(len(self.splits[split]))) if only is None else list(only)
        if writes(self.task):
            return self._written(model, split, chosen, kept)
        items = [self.encoded[split][i] for i in chosen]
        size, pad = self.recipe.evaluate.batch_size, self.tokenizer.pad_token_id
        if self.choices:
            outputs = log_likelihoods(model, items, self.choices, pad, size)
        else:
            outputs = predict_logits(model, items, self.task.head, pad, size)
        return [
            self._answer(self.splits[split][i], output)
            for i, output in zip(chosen, outputs, strict=True)
        ]

    def _written(
        self, model: nn.Module, split: str, chosen: Sequence[int], kept: Kept | None
    ) -> list[Answer]:
        examples, known = self.splits[split], kept.known if kept else {}
        asked = [i for i in chosen if examples[i].id not in known]

        def on_batch(numbers: Sequence[int], texts: Sequence[Generated]) -> None:
            if kept is not None:
                found = (
                    self._answer(examples[asked[n]], t.text, t.ended)
                    for n, t in zip(numbers, texts, strict=True)
                )
                kept.add(answer.line() for answer in found)

        merged = self.attachment.folded() if self.attachment is not None else nullcontext()
        with merged:
            texts = generate(
                model,
                [self.encoded[split][i] for i in asked],
                self.tokenizer,
                self.recipe.evaluate.batch_size,
                self.recipe.decode,
                _reporter(self.observe, split),
                on_batch,
                self.seed,
                self.stops,
            )
        new = {examples[i].id: (t.text, t.ended) for i, t in zip(asked, texts, strict=True)}
        new |= {id: (line["output"], line.get("ended", True)) for id, line in known.items()}
        return [self._answer(examples[i], *new[examples[i].id]) for i in chosen]

    def _answer(self, example: Example, output: Any, ended: bool = True) -> Answer:
        hidden = example.target is None and not example.references
        reference = None if hidden else self.task.to_reference(example)
        text = example.text if example.pair is None else f"{example.text} [SEP] {example.pair}"
        return Answer(
            example.id,
            self.task.to_prediction(output),
            reference,
            output,
            text,
            example.group,
            ended,
        )

    def scores(self, model: nn.Module, splits: Sequence[str], most: int | None = None) -> Scores:
        """split -> metric -> value; on at most `most` examples of a split, evenly spread over it."""
        return {
            split: score_answers(
                self.task, self.answers(model, split, self.spread(split, most)), self.failed
            )
            for split in splits
        }

    def untrained(self, model: nn.Module) -> Scores:
        """As `scores`, of a model before training: on a slice of each split."""
        return self.scores(model, list(self.splits), untrained_most(self.task))

    def spread(self, split: str, most: int | None) -> list[int] | None:
        n = len(self.splits[split])
        return None if most is None or n <= most else [i * n // most for i in range(most)]


def stops_of(task: Task, tokenizer: Any, splits: Mapping[str, Sequence[Example]]) -> list[int]:
    """Tokens that end a text besides the tokenizer's own; a mark of several tokens is cut from the text instead."""
    marks = [tokenizer(mark, add_special_tokens=False)["input_ids"] for mark in task.stops]
    chats = any(example.turns for examples in splits.values() for example in examples[:1])
    return [ids[0] for ids in marks if len(ids) == 1] + (end_of_turn(tokenizer) if chats else [])


def _reporter(observe: Observer | None, split: str) -> Callable[[int, int], None] | None:
    if observe is None:
        return None
    start = time.perf_counter()

    def report(done: int, total: int) -> None:
        seconds = time.perf_counter() - start
        observe(
            {"event": "generated", "split": split, "done": done, "total": total, "seconds": seconds}
        )

    return report


def attach(recipe: Recipe, base: Base) -> Attachment:
    """The recipe's method on the model. RecipeError: `expect` has other counts. ModelError: it could never merge, or
    there is no room for its tokens."""
    attachment = recipe.method.attach(base.model, base.roles, base.newly_initialised | base.head)
    if added := recipe.method.added_tokens:
        refuse_too_long(recipe.data, None, base.config, added)
        if recipe.data.packing:
            raise ModelError(
                f"data.packing: {recipe.method.name} puts tokens before every prompt; leave packing out"
            )
    if recipe.method.merges and (why := attachment.why_unmergeable()):
        raise ModelError(why)  # or it would fail its proof, with all the training done
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
    newly_initialised = sum(
        p.numel() for name, p in trained.items() if name in attachment.newly_initialised
    )
    trainable = sum(p.numel() for p in trained.values()) - newly_initialised
    ours = {name for name, _ in attachment.model.named_parameters() if ".delta." in name}
    total = sum(numbers_in(p) for p in attachment.model.parameters()) - count(
        attachment.model, ours
    )
    return Counts(
        sites=len(attachment.sites), trainable=trainable, fresh=newly_initialised, total=total
    )


def training_set(recipe: Recipe, examples: Sequence[Example], tokenizer: Any) -> list[Encoded]:
    return encode_once(examples, tokenizer, recipe.task.head, recipe.data)


def settled(recipe: Recipe) -> Recipe:
    """`train.precision: auto` as what it is on this machine."""
    if recipe.train.precision != "auto":
        return recipe
    plain = recipe.model.dtype == "fp32" and recipe.model.quantize is None
    frozen = recipe.method.freezes_base and not recipe.model.new_tokens
    half = has_bf16() and plain
    train = recipe.train.model_copy(update={"precision": "bf16" if half and not frozen else "fp32"})
    model = recipe.model.model_copy(update={"dtype": "bf16"}) if half and frozen else recipe.model
    return recipe.model_copy(update={"train": train, "model": model})


def has_bf16() -> bool:
    """Whether this machine multiplies bf16 faster than fp32, and not by emulation."""
    if torch.cuda.is_available() and os.environ.get("LORAKIT_CPU") != "1":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def precision_of(recipe: Recipe) -> str:
    """accelerate's word for the precision of a `settled` recipe."""
    return "no" if recipe.train.precision == "fp32" else recipe.train.precision


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[Any]:
    """The precision of a `settled` recipe, so that a run is scored the same while it trains and afterwards."""
    dtype = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision_of(recipe)]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
