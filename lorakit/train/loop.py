"""One training loop for every method, task and model.

The plan (`plan.py`) says which examples meet in a step; each process takes its share of them in micro batches, the loss
is summed and divided by what the whole global batch holds, so the gradient does not depend on how the batch was cut.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lorakit.batches import Encoded, collate, pack
from lorakit.errors import DataError, ModelError, RecipeError, TrainingError
from lorakit.methods import Attachment
from lorakit.nn import tokens
from lorakit.nn.logits import last_logits
from lorakit.recipe.schema import Evaluate, Train
from lorakit.tasks import Head
from lorakit.train.loss import loss_sum
from lorakit.train.optim import build_optimizer, learning_rate
from lorakit.train.plan import epoch_batches, own_part, share, steps_per_epoch
from lorakit.train.processes import Exchange, prepared

log = logging.getLogger(__name__)

Score = Callable[[nn.Module], Mapping[str, Mapping[str, float]]]
Observer = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Setup:
    """What a training run is made of, besides the model."""

    examples: Sequence[Encoded]
    head: Head
    pad_id: int
    width: int | None
    """Pad every batch to this many tokens; None: to its longest example."""
    train: Train
    evaluate: Evaluate
    seed: int
    watched: tuple[str, str]
    """(split, metric) that selects the best state."""
    packed: int | None = None
    """Pack examples into rows of at most this many tokens; None: a row each."""


@dataclass
class Trained:
    """How it went. `state`: what the attachment held at the kept evaluation."""

    steps: int
    epochs: float
    best_step: int
    best_epoch: float
    scores: Mapping[str, Mapping[str, float]]
    state: dict[str, Tensor]
    seconds: float
    evaluating: float


def train(attachment: Attachment, setup: Setup, accelerator: Accelerator, score: Score, observe: Observer) -> Trained:
    """Train what the attachment trains, in place; afterwards the model holds the kept state (under FSDP2: parts of the
    last one, and the kept one is to be loaded into the base model read anew).

    score: the model -> {split: {metric: value}}, called on every process. observe: called with plain events, on the
    main process. TrainingError: a delta without gradient after the first step, or a loss that is not finite.
    DataError: no examples.
    """
    if not setup.examples:
        raise DataError("there is no example to train on")
    settings, size = setup.train, setup.train.global_batch_size
    shares = share(size, settings.micro_batch_size, accelerator.num_processes)
    per_epoch = steps_per_epoch(len(setup.examples), size)
    total = min(settings.max_steps or sys.maxsize, max(1, round(settings.epochs * per_epoch)))
    refuse_no_rate(settings, total)
    due = evaluation_steps(setup.evaluate, per_epoch, total)
    if settings.gradient_checkpointing:
        recompute_activations(attachment.model)
    if setup.packed is not None:
        refuse_leaks(attachment.model, setup.pad_id)
    parameters = attachment.trained()
    optimizer = build_optimizer(parameters, settings, attachment.method.parameter_groups(parameters))
    exchange = prepared(accelerator, attachment.model, optimizer, settings.max_grad_norm or 0.0)
    model, optimizer, parameters = exchange.model, exchange.optimizer, attachment.trained()
    clock, kept = _Clock(), _Kept(setup.watched, setup.evaluate)
    observe({"event": "start", "steps": total, "steps_per_epoch": per_epoch, "accumulation": shares.accumulation})
    model.train()
    for step, batch in _numbered_batches(setup, total):
        rate = learning_rate(settings, step, total)
        for group in optimizer.param_groups:
            group["lr"] = rate
        parts = [[setup.examples[i] for i in part] for part in own_part(batch, shares, accelerator.process_index)]
        loss = _accumulate(model, parts, sum(setup.examples[i].trained for i in batch), setup, exchange)
        if step == 0:
            refuse_dead(attachment, exchange.gradient)
        _refuse_infinite(loss, step, [setup.examples[i].id for i in batch])
        norm = exchange.clip(list(parameters.values()), settings.max_grad_norm or math.inf)
        exchange.step()
        clock.count(sum(setup.examples[i].length for i in batch))
        done = step + 1
        observe({
            "event": "step", "step": done, "epoch": done / per_epoch, "loss": loss, "learning_rate": rate,
            "grad_norm": norm, "tokens_per_second": clock.rate(),
            "seconds": clock.training, "memory_mib": memory_mib(),
        })  # fmt: skip
        if due(done):
            with clock.paused(), exchange.whole():
                scores = score(model)
                enough = kept.offer(done, scores, attachment)
                model.train()
            for split, values in scores.items():
                observe(
                    {"event": "eval", "step": done, "epoch": done / per_epoch, "split": split, "scores": dict(values)}
                )
            if enough or done == total:
                break
    accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    if not exchange.sharded:
        attachment.load_state(kept.state)
    attachment.model.eval()
    return Trained(
        done, done / per_epoch, kept.step, kept.step / per_epoch, kept.scores, kept.state, clock.training, clock.apart
    )


def refuse_no_rate(settings: Train, total: int) -> None:
    """RecipeError where a warm-up from zero is all there is; a warning where it does not come to its end."""
    if total == 1 and settings.learning_rate > 0 and learning_rate(settings, 0, total) == 0:
        raise RecipeError(
            f"the learning rate of the only step is zero, for train.warmup {settings.warmup:g} begins there: nothing "
            "would be learnt. Train longer (train.epochs, train.max_steps, more examples), or take train.warmup=0."
        )
    if settings.warmup > total:
        log.warning("train.warmup: %g steps, and the run has %d: it ends while it warms up", settings.warmup, total)


def recompute_activations(model: nn.Module) -> None:
    """Gradient checkpointing, by the name that this transformers has for it. ModelError: the model cannot."""
    # its older name warns from 5.23 on; pyproject takes transformers from 5.0, which has no other
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    enable: Any = next((getattr(model, name) for name in names if hasattr(model, name)), None)
    try:
        if enable is None:
            raise ValueError("it is no model of transformers")
        enable({"use_reentrant": False})
    except ValueError as error:
        raise ModelError(f"train.gradient_checkpointing: {type(model).__name__} cannot: {error}") from error


def evaluation_steps(cadence: Evaluate, per_epoch: int, total: int) -> Callable[[int], bool]:
    """Whether the model is scored after a step (from 1); after the last one it always is."""
    every = cadence.every_steps or cadence.every * per_epoch

    def due(step: int) -> bool:
        near = (math.floor(step / every), math.ceil(step / every))
        return step == total or any(k >= 1 and round(k * every) == step for k in near)

    # as short as that, every step is one of them, and the sums above leave what a float holds
    return (lambda _step: True) if every <= 0.5 else due


def refuse_dead(attachment: Attachment, gradient: Callable[[nn.Parameter], Tensor | None] = attrgetter("grad")) -> None:
    """TrainingError unless every delta, and everything fresh, has received a gradient that is not zero."""
    by_name = {id(p): name for name, p in attachment.model.named_parameters()}
    found = {id(p): gradient(p) for p in attachment.trained().values()}
    alive = {key for key, grad in found.items() if grad is not None and bool(grad.any())}
    dead = []
    for site in attachment.sites:
        delta: Any = site.module.delta[site.part]  # type: ignore[index]
        if not any(id(p) in alive for p in delta.parameters()):
            dead.append(site.name)
    # the rows of new tokens have none where no example of the first batch holds one
    fresh = {name for name in attachment.fresh if not name.endswith(tokens.END)}
    dead += [by_name[id(p)] for n, p in attachment.model.named_parameters() if n in fresh and id(p) not in alive]
    if dead:
        shown = ", ".join(dead[:6]) + (f" and {len(dead) - 6} more" if len(dead) > 6 else "")
        raise TrainingError(
            f"after the first step {len(dead)} trained part(s) have no gradient, so they would never learn: {shown}. "
            "The model does not use these weights for this task: leave them out of method.targets."
        )


def _numbered_batches(setup: Setup, total: int) -> Iterator[tuple[int, list[int]]]:
    lengths = [e.length for e in setup.examples]
    step = epoch = 0
    while True:
        for batch in epoch_batches(
            lengths, setup.train.global_batch_size, setup.seed, epoch, setup.train.group_by_length
        ):
            if step == total:
                return
            yield step, batch
            step += 1
        epoch += 1


def _accumulate(model: Any, parts: list[list[Encoded]], whole: int, setup: Setup, exchange: Exchange) -> float:
    """Gradients of one process's micro batches, each divided by what the whole global batch holds; the mean loss."""
    accelerator = exchange.accelerator
    total = torch.zeros((), device=accelerator.device)
    for i, items in enumerate(parts):
        last = i == len(parts) - 1
        if not items and not last:
            continue
        # a process without an example must still take part in the exchange of gradients: it brings a loss of zero
        weight = 1.0 if items else 0.0
        batch = _tensors(items or setup.examples[:1], setup)
        batch = {name: value.to(accelerator.device) for name, value in batch.items()}
        with exchange.micro(last):
            loss = loss_sum(model, batch, setup.head, setup.train.label_smoothing) * (weight / whole)
            exchange.backward(loss)
        total += loss.detach()
    mean: Any = accelerator.reduce(total, "sum")
    return float(mean)


def _tensors(items: Sequence[Encoded], setup: Setup) -> dict[str, Tensor]:
    if setup.packed is not None:
        return pack(items, setup.packed, setup.pad_id)
    return collate(items, setup.head, setup.pad_id, setup.width)


@torch.no_grad()
def refuse_leaks(model: nn.Module, pad_id: int) -> None:
    """ModelError unless an example in a packed row gets the logits that it gets alone."""
    drawn = [[3, 4, 5, 6, 7], [5, 4, 3], [7, 6, 5, 4]]
    items = [Encoded("", {"input_ids": ids, "attention_mask": [1] * len(ids)}, None, ids) for ids in drawn]
    model.eval()
    device = next(model.parameters()).device

    def logits(chosen: Sequence[Encoded]) -> Tensor:
        inputs = {name: value.to(device) for name, value in pack(chosen, 16, pad_id).items() if name != "labels"}
        return last_logits(model, inputs, inputs["input_ids"].shape[1])[0].float()

    alone, together = torch.cat([logits([item]) for item in items]), logits(items)
    order = [*range(5), *range(9, 12), *range(5, 9)]  # the longest come first in a row
    if (alone - together[order]).abs().max() > 1e-2 * alone.abs().max():
        raise ModelError(
            f"data.packing: in {type(model).__name__} the examples of a row see each other, so it would learn another "
            "text than yours; leave data.packing out"
        )


def _refuse_infinite(loss: float, step: int, ids: Sequence[str]) -> None:
    if not math.isfinite(loss):
        cause = (
            "Nothing was updated before: look at the size of the targets of a regression, and at the base's weights."
            if step == 0
            else "Lower train.learning_rate, raise train.warmup, or take precision fp32 or bf16 if it was fp16."
        )
        shown = ", ".join(ids[:8]) + (" ..." if len(ids) > 8 else "")
        raise TrainingError(f"the loss is {loss} at step {step + 1} (examples {shown}). {cause}")


def memory_mib() -> float:
    """Peak memory: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


class _Kept:
    """The state to keep: that of the best score so far, or the last."""

    def __init__(self, watched: tuple[str, str], cadence: Evaluate):
        self.watched, self.cadence = watched, cadence
        self.step, self.best, self.waited = 0, -math.inf, 0
        self.scores: Mapping[str, Mapping[str, float]] = {}
        self.state: dict[str, Tensor] = {}

    def offer(self, step: int, scores: Mapping[str, Mapping[str, float]], attachment: Attachment) -> bool:
        """Take it if it is better (or if the last is wanted); True when patience is at its end."""
        split, metric = self.watched
        value = scores[split][metric]
        value = -math.inf if math.isnan(value) else value  # a correlation of constant predictions, say
        better = value > self.best or not self.state
        if better or self.cadence.keep == "last":
            self.step, self.scores, self.state = step, scores, attachment.state()
        self.best, self.waited = (value, 0) if better else (self.best, self.waited + 1)
        return self.cadence.patience is not None and self.waited >= self.cadence.patience


class _Clock:
    """Seconds of training, without those of evaluation, and tokens per second."""

    def __init__(self) -> None:
        self.begin, self.apart, self.tokens = time.perf_counter(), 0.0, 0

    @property
    def training(self) -> float:
        return time.perf_counter() - self.begin - self.apart

    def count(self, tokens: int) -> None:
        self.tokens += tokens

    def rate(self) -> float:
        return self.tokens / max(self.training, 1e-9)

    def paused(self) -> Any:
        return _Pause(self)


class _Pause:
    def __init__(self, clock: _Clock):
        self.clock = clock

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.clock.apart += time.perf_counter() - self.start
