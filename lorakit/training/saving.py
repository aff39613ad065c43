"""When a checkpoint is written, what goes in, and how it is put back; and how a run is stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from lorakit.errors import InputError, LorakitError, Stopped, TrainingError
from lorakit.methods import Attachment
from lorakit.nn.freeze import part_like, whole_tensor
from lorakit.recipe.schema import Checkpoint
from lorakit.training import checkpoint
from lorakit.training.checkpoint import BEST, OPTIMIZER, TRAINED, Saved
from lorakit.training.processes import Exchange, keeps_checkpoints
from lorakit.training.progress import Progress
from lorakit.training.rng import restore_rng, rng_state
from lorakit.training.stop import Interrupted, Stop

log = logging.getLogger(__name__)

RECENT = 30.0
"""Seconds: before an evaluation, which may take long, a checkpoint is written unless the last one is as young."""

MOMENTS = {"step", "exp_avg", "exp_avg_sq"}
"""What AdamW holds of a parameter."""


@dataclass(frozen=True)
class Checkpoints:
    """folder: where they go. start: the one to go on from. about: what the caller adds to each, asked on the main
    process when one is written."""

    folder: Path
    settings: Checkpoint
    start: Saved | None = None
    about: Callable[[], dict[str, Any]] = dict


class Keeper:
    """Of one training; without `Checkpoints` it writes none and catches no signal."""

    def __init__(
        self,
        asked: Checkpoints | None,
        attachment: Attachment,
        accelerator: Accelerator,
        run: Progress,
    ):
        if asked is not None and not keeps_checkpoints(accelerator):
            log.warning("DeepSpeed: no checkpoints are written; stopped, the run begins anew")
            asked = None
        self.asked, self.attachment, self.accelerator = asked, attachment, accelerator
        self.optimizer: Any = None
        self.run, self.stop, self.at = run, Stop(), time.monotonic()
        self.last = (
            asked.start.state.step if asked is not None and asked.start is not None else None
        )

    @property
    def goes_on(self) -> bool:
        return self.asked is not None and self.asked.start is not None

    def __enter__(self) -> Keeper:
        if self.asked is not None:
            self.stop.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.__exit__()

    # what the processes tell each other in the exchange of a step's loss

    def wishes(self, evaluation: bool) -> list[float]:
        """Of this process: [stop by Ctrl-C, stop by SIGTERM, a checkpoint]; evaluation: one follows this step."""
        number = self.stop.number
        return [
            float(number == 2),
            float(number is not None and number != 2),
            float(self._is_time(evaluation)),
        ]

    def _is_time(self, evaluation: bool) -> bool:
        if self.asked is None or not self.accelerator.is_main_process:
            return False
        age, minutes = time.monotonic() - self.at, self.asked.settings.minutes
        return (minutes is not None and age >= 60 * minutes) or (evaluation and age >= RECENT)

    def after_step(self, wishes: list[float]) -> None:
        """wishes: the sums over all processes. Stopped: after a checkpoint."""
        if self.asked is None:
            return
        by_key, by_signal, due = (wish > 0 for wish in wishes)
        every = self.asked.settings.every_steps
        if by_key or by_signal or due or (every is not None and self.run.step % every == 0):
            self.save()
        if by_key or by_signal:
            raise self._stopped(130 if by_key else 143)

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Inside, a stop does not wait for the end: what was evaluated so far is lost. Stopped: after a checkpoint of
        the state that was to be evaluated, or, with several processes, of the last one."""
        rng = rng_state()
        try:
            with self.stop.at_once():
                yield
        except Interrupted:
            if self.accelerator.num_processes == 1:
                self.save(rng)
            raise self._stopped(128 + (self.stop.number or 2)) from None

    def finish(self) -> None:
        """A checkpoint of what was trained, for what follows may take long. Stopped: asked for since the last step."""
        self.save()
        if self.stop.number is not None:
            raise self._stopped(128 + self.stop.number)

    def _stopped(self, code: int) -> Stopped:
        place = f"stopped at step {self.run.step} of {self.run.total}"
        goes_on = {None: "begins anew", self.run.step: "goes on from there"}.get(
            self.last, f"goes on from step {self.last}"
        )
        return Stopped(f"{place}; the same command {goes_on}", code)

    # writing

    def save(self, rng: dict[str, Any] | None = None) -> None:
        """On every process at once. InputError: disk full. TrainingError: a number that is not finite."""
        if self.asked is None:
            return
        run, accelerator = self.run, self.accelerator
        tensors = {
            TRAINED: self.attachment.state(),
            OPTIMIZER: optimizer_tensors(self.optimizer, self._named()),
        }
        self._refuse_broken(tensors)
        if run.kept.state and run.kept.step != run.step:
            tensors[BEST] = run.kept.state
        everyone = gather_object([rng or rng_state()])
        if accelerator.is_main_process:
            scaler = None if accelerator.scaler is None else accelerator.scaler.state_dict()
            state = run.as_state(accelerator.num_processes, scaler, self.asked.about())
            checkpoint.save(
                self.asked.folder, state, tensors, everyone, self.asked.settings.keep_last
            )
        self.last, self.at = run.step, time.monotonic()

    def _refuse_broken(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        for values in tensors.values():
            for name, tensor in values.items():
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    raise TrainingError(
                        f"after step {self.run.step} {name} holds numbers that are not finite. {self.advice()}"
                    )

    def advice(self) -> str:
        """What is left after numbers went wrong."""
        kept = None if self.asked is None else next(iter(checkpoint.found(self.asked.folder)), None)
        left = f" The last good checkpoint is {kept}." if kept else ""
        return f"Lower train.learning_rate, raise train.warmup, or take precision fp32 or bf16 if it was fp16.{left}"

    # putting back

    def restore_model(self) -> None:
        """What was trained as it was, before the model is spread over processes. InputError: of another model."""
        if self.asked is not None and self.asked.start is not None:
            with _fitting(self.asked.start):
                self.attachment.load_state(self.asked.start.trained)

    def restore(self, exchange: Exchange) -> None:
        """Optimizer, random numbers and progress as they were, after that. InputError: they are not of this model."""
        self.optimizer = exchange.optimizer
        if self.asked is None or self.asked.start is None:
            return
        saved, rank = self.asked.start, self.accelerator.process_index
        with _fitting(saved):
            restore_optimizer(self.optimizer, self._named(), saved.optimizer)
            if self.accelerator.scaler is not None and saved.state.scaler is not None:
                self.accelerator.scaler.load_state_dict(saved.state.scaler)
            self.run.take(saved)
            if rank < len(saved.rng):
                restore_rng(saved.rng[rank])
            else:  # it was written by fewer processes
                torch.manual_seed(torch.initial_seed() + saved.state.step)

    def _named(self) -> dict[str, nn.Parameter]:
        return self.attachment.trained()


@contextmanager
def _fitting(saved: Saved) -> Iterator[None]:
    try:
        yield
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        OverflowError,
        RuntimeError,
        LorakitError,
    ) as error:
        raise InputError(
            f"{saved.folder} does not fit this run: {error}. --restart starts over."
        ) from error


def optimizer_tensors(optimizer: Any, named: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """What an optimizer holds of each parameter, as `exp_avg.NAME`: whole copies on the CPU. Under FSDP2 every process
    must ask."""
    found = {}
    for name, parameter in named.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                found[f"{key}.{name}"] = whole_tensor(value.detach()).cpu().clone().contiguous()
    return found


def restore_optimizer(
    optimizer: Any, named: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Put `optimizer_tensors` back. ValueError: they are of other parameters, or of another optimizer."""
    for full, value in tensors.items():
        key, _, name = full.partition(".")
        parameter = named.get(name)
        shape = None if parameter is None else torch.Size() if key == "step" else parameter.shape
        if parameter is None or value.shape != shape:
            raise ValueError(f"the optimizer has no {name} of shape {tuple(value.shape)}")
        dtype = torch.float32 if key == "step" else parameter.dtype
        # a tensor of our own: one of the file may lie at any address
        own = torch.empty_like(value, device=parameter.device, dtype=dtype).copy_(value)
        optimizer.state[parameter][key] = own if key == "step" else part_like(parameter, own)
    for name, parameter in named.items():
        found = set(optimizer.state.get(parameter, ()))
        if found and found != MOMENTS:
            raise ValueError(
                f"of {name} the optimizer has {', '.join(sorted(found))}; AdamW has two moments and a step"
            )
