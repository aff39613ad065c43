"""One training loop for every method, task and model.

The plan (`plan.py`) says which examples meet in a step; each process takes its share of them in micro batches, the loss
is summed and divided by what the whole global batch holds, so the gradient does not depend on how the batch was cut.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lorakit.batches import Encoded, collate, pack, to_device
from lorakit.errors import DataError, ModelError
from lorakit.fast import fast_training
from lorakit.fast.compiled import as_written, compiled_layers
from lorakit.methods import Attachment
from lorakit.recipe.schema import Evaluate, Train
from lorakit.tasks import Head
from lorakit.training.loss import can_be_lean, loss_sum
from lorakit.training.memory import GiveBack, peak_mib
from lorakit.training.optim import build_optimizer
from lorakit.training.plan import epoch_batches, own_part, share, steps_per_epoch
from lorakit.training.processes import Exchange, prepared
from lorakit.training.progress import Kept, Progress
from lorakit.training.refuse import refuse_leaks, refuse_no_rate
from lorakit.training.saving import Checkpoints, Keeper
from lorakit.training.update import Update

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
    lean: bool = False
    """The loss without logits, where the model's can be had so (`train` finds out)."""


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
    skipped: int = 0
    """Steps that were left out, for their loss or gradient was not finite."""
    planned: int = 0
    """Steps that the recipe asks for; more than `steps` where evaluate.patience ended the run."""


def train(
    attachment: Attachment,
    setup: Setup,
    accelerator: Accelerator,
    score: Score,
    observe: Observer,
    checkpoints: Checkpoints | None = None,
) -> Trained:
    """Train what the attachment trains, in place; afterwards the model holds the kept state (under FSDP2: parts of the
    last one, and the kept one is to be loaded into the base model read anew).

    score: the model -> {split: {metric: value}}, called on every process. observe: called with plain events, on the
    main process. checkpoints: where they are written, and the one to go on from; with them Ctrl-C and SIGTERM are
    caught. TrainingError: a delta without gradient or that does not move, or a loss or gradient that is not finite.
    DataError: no examples. Stopped: by a signal.
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
    first = _to(_tensors(setup.examples[:1], setup), accelerator)
    lean = settings.fast == "auto" and setup.head is Head.CAUSAL
    setup = replace(setup, lean=lean and can_be_lean(attachment.model, first))
    parameters = attachment.trained()
    optimizer = build_optimizer(
        parameters, settings, attachment.method.parameter_groups(parameters)
    )
    run = Progress(Kept(setup.watched, setup.evaluate), total)
    keeper = Keeper(checkpoints, attachment, accelerator, run)
    keeper.restore_model()
    exchange = prepared(accelerator, attachment.model, optimizer, settings.max_grad_norm or 0.0)
    setup = replace(
        setup, lean=setup.lean and not exchange.sharded
    )  # there the output layer is in parts by then
    if keeper.goes_on and exchange.lays_out_later:
        _exchange_nothing(setup, exchange)
    keeper.restore(exchange)
    update = Update(attachment, exchange, settings, run, keeper)
    give_back = GiveBack(accelerator.device)
    plan = {"steps": total, "steps_per_epoch": per_epoch, "accumulation": shares.accumulation}
    observe(
        {"event": "resumed", "step": run.step, **plan} if run.step else {"event": "start", **plan}
    )
    exchange.model.train()
    compiled, aside = (
        (compiled_layers, as_written) if settings.compile else (nullcontext, nullcontext)
    )
    with keeper, compiled(attachment.model), fast_training(attachment.model, settings.fast):
        batches = batches_from(setup, run.step)
        while not run.ended:
            if run.scored:
                chosen = next(batches)
                batch = [setup.examples[i] for i in chosen]
                own = own_part(chosen, shares, accelerator.process_index)
                parts = [[setup.examples[i] for i in part] for part in own]
                wishes = keeper.wishes(evaluation=due(run.step + 1))
                sums = _accumulate(parts, sum(e.trained for e in batch), wishes, setup, exchange)
                event, wishes = update(sums, [e.id for e in batch])
                run.clock.count(sum(e.length for e in batch))
                run.step += 1
                run.scored = not due(run.step)
                observe(
                    {
                        **event,
                        "step": run.step,
                        "epoch": run.step / per_epoch,
                        "tokens_per_second": run.clock.rate(),
                        "seconds": run.clock.training,
                        "memory_mib": peak_mib(),
                    }
                )
                give_back()
                keeper.after_step(wishes)
            else:
                with run.clock.paused(), keeper.evaluation(), exchange.whole(), aside():
                    scores = score(exchange.model)
                    out_of_patience = run.kept.offer(run.step, scores, attachment)
                    run.ended = out_of_patience or run.step == total
                exchange.model.train()
                for split, values in scores.items():
                    said = {"split": split, "scores": dict(values)}
                    observe(
                        {"event": "eval", "step": run.step, "epoch": run.step / per_epoch, **said}
                    )
                if out_of_patience and run.step < total:
                    observe(_stopped_early(run, setup, per_epoch))
                run.scored = True
        keeper.finish()
    accelerator.unwrap_model(exchange.model, keep_fp32_wrapper=False)
    kept = run.kept
    if not exchange.sharded:
        attachment.load_state(kept.state)
    attachment.model.eval()
    return Trained(
        run.step,
        run.step / per_epoch,
        kept.step,
        kept.step / per_epoch,
        kept.scores,
        kept.state,
        run.clock.training,
        run.clock.apart,
        run.bad.skipped,
        total,
    )


def _stopped_early(run: Progress, setup: Setup, per_epoch: int) -> dict[str, Any]:
    split, metric = setup.watched
    place = {"step": run.step, "steps": run.total, "epoch": run.step / per_epoch}
    return {
        "event": "stopped_early",
        **place,
        "not_trained": run.total - run.step,
        "patience": setup.evaluate.patience,
        "kept_step": run.kept.step,
        "split": split,
        "metric": metric,
    }


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
        raise ModelError(
            f"train.gradient_checkpointing: {type(model).__name__} cannot: {error}"
        ) from error


def evaluation_steps(cadence: Evaluate, per_epoch: int, total: int) -> Callable[[int], bool]:
    """Whether the model is scored after a step (from 1); after the last one it always is."""
    every = cadence.every_steps or cadence.every * per_epoch

    def due(step: int) -> bool:
        near = (math.floor(step / every), math.ceil(step / every))
        return step == total or any(k >= 1 and round(k * every) == step for k in near)

    # as short as that, every step is one of them, and the sums above leave what a float holds
    return (lambda _step: True) if every <= 0.5 else due


def batches_from(setup: Setup, step: int) -> Iterator[list[int]]:
    """The example numbers of step `step` (from 0) and of all that follow; nothing before it is read."""
    lengths, size = [e.length for e in setup.examples], setup.train.global_batch_size
    epoch, done = divmod(step, steps_per_epoch(len(lengths), size))
    while True:
        yield from epoch_batches(lengths, size, setup.seed, epoch, setup.train.group_by_length)[
            done:
        ]
        epoch, done = epoch + 1, 0


def _accumulate(
    parts: list[list[Encoded]], whole: int, wishes: list[float], setup: Setup, exchange: Exchange
) -> Tensor:
    """Gradients of one process's micro batches, each divided by what the whole global batch holds; the mean loss, and
    after it the sums of all processes' wishes, which travel with it: (1 + wishes,)."""
    accelerator = exchange.accelerator
    total = to_device(torch.tensor([0.0, *wishes]), accelerator.device)
    for i, items in enumerate(parts):
        last = i == len(parts) - 1
        if not items and not last:
            continue
        # a process without an example must still take part in the exchange of gradients: it brings a loss of zero
        weight = 1.0 if items else 0.0
        batch = _to(_tensors(items or setup.examples[:1], setup), accelerator)
        with exchange.micro(last):
            loss = loss_sum(
                exchange.model, batch, setup.head, setup.train.label_smoothing, setup.lean
            )
            loss = loss * (weight / whole)
            exchange.backward(loss)
        total[0] += loss.detach()
    return accelerator.reduce(total, "sum")  # type: ignore[return-value]


def _exchange_nothing(setup: Setup, exchange: Exchange) -> None:
    """An exchange of gradients that are forgotten, so that the next one is not the first, and has the order of sums
    that it had before the stop. Draws random numbers."""
    exchange.model.train()
    batch = _to(_tensors(setup.examples[:1], setup), exchange.accelerator)
    with exchange.micro(True):
        exchange.backward(
            0 * loss_sum(exchange.model, batch, setup.head, setup.train.label_smoothing, setup.lean)
        )
    exchange.drop()


def _to(batch: dict[str, Tensor], accelerator: Accelerator) -> dict[str, Tensor]:
    """On the device; a causal head's labels stay on the host, see `loss_sum`."""
    there = accelerator.device
    return {
        name: value if name == "labels" and value.ndim > 1 else to_device(value, there)
        for name, value in batch.items()
    }


def _tensors(items: Sequence[Encoded], setup: Setup) -> dict[str, Tensor]:
    if setup.packed is not None:
        return pack(items, setup.packed, setup.pad_id)
    return collate(items, setup.head, setup.pad_id, setup.width)
