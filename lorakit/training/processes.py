"""What one optimizer step is on several processes: DDP (and one process), FSDP2, and DeepSpeed's ZeRO-2.

The loop is the same for all three; where they differ, it asks the `Exchange` that `prepared` chose. The mean of the
processes' gradients is what all three give, so the loss that a process brings is multiplied by their number.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import DistributedType
from torch import Tensor, nn

from lorakit.errors import RecipeError
from lorakit.nn.freeze import whole_tensor
from lorakit.recipe.schema import Train


class Exchange:
    """DDP, and one process: each holds the whole model."""

    sharded = False
    """Each process holds a part of the parameters: outside `whole` the model can be trained, and nothing else."""

    lays_out_later = True
    """After its first exchange DDP puts gradients into buckets anew, as they came: a number's place in a bucket decides
    in which order more than two processes add it up, and with it the last bit."""

    def __init__(
        self, accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer
    ):
        self.accelerator = accelerator
        self.lays_out_later = self.lays_out_later and accelerator.num_processes > 2
        self.model, self.optimizer = self.prepare(model, optimizer)

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        return self.accelerator.prepare(model, optimizer)

    def micro(self, last: bool) -> AbstractContextManager[Any]:
        """Around the forward and backward pass of a micro batch; the last one of a step exchanges gradients."""
        return nullcontext() if last else self.accelerator.no_sync(self.model)

    def backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss * self.accelerator.num_processes)

    def gradient(self, parameter: nn.Parameter) -> Tensor | None:
        """The whole gradient, of all processes, before `step`; asked on every process, in the same order."""
        return None if parameter.grad is None else whole_tensor(parameter.grad)

    def clip(self, parameters: Collection[nn.Parameter], most: float) -> Tensor:
        """The norm of all gradients together, a scalar; they are scaled to one of `most` if it is more."""
        norm: Any = self.accelerator.clip_grad_norm_(parameters, most)
        return whole_tensor(norm)

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def drop(self) -> None:
        """Leave the step out: forget its gradients. Not with DeepSpeed, see `check_strategy`."""
        self.optimizer.zero_grad(set_to_none=True)

    def whole(self) -> AbstractContextManager[Any]:
        """Inside, every process holds the whole model as a plain one, to be asked and read, and not to be changed."""
        return nullcontext()


class Sharded(Exchange):
    """FSDP2: parameters, gradients and the optimizer's state are DTensors, a part on each process; a layer's parameters
    are whole and plain tensors while it computes."""

    sharded, lays_out_later = True, False

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        # accelerate 1.15 makes parts of their own of the embeddings and the output, and fails inside another part
        alone = [getattr(model, f"get_{end}put_embeddings")() for end in ("in", "out")]
        plugin: Any = self.accelerator.state.fsdp_plugin
        asked = plugin.transformer_cls_names_to_wrap
        chosen: Any = asked or getattr(model, "_no_split_modules", None) or ()
        outer = {
            type(m).__name__ for m in model.modules() if any(part in alone for part in m.modules())
        }
        plugin.transformer_cls_names_to_wrap = sorted({*chosen} - outer)
        try:
            return super().prepare(model, optimizer)
        finally:
            plugin.transformer_cls_names_to_wrap = (
                asked  # the process's next model may be of another family
            )

    @contextmanager
    def micro(self, last: bool) -> Iterator[None]:
        # accelerate casts what DDP prepares; fully_shard's own casts would round the parameters that are saved
        with super().micro(last), self.accelerator.autocast():
            yield

    @contextmanager
    def whole(self) -> Iterator[None]:
        from torch.distributed.fsdp import FSDPModule

        parts = [module for module in self.model.modules() if isinstance(module, FSDPModule)]
        root: Any = self.model
        plugin: Any = self.accelerator.state.fsdp_plugin
        root.set_reshard_after_forward(
            False
        )  # or a process would wait for others that have no batch left
        for part in parts:
            part.unshard()
        try:
            with self.accelerator.autocast():
                yield
        finally:
            for part in parts:
                part.reshard()
            root.set_reshard_after_forward(plugin.reshard_after_forward)


class ZeRO(Exchange):
    """DeepSpeed ZeRO-2: each process holds the model; gradients and the optimizer's state are shared out."""

    lays_out_later = False

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        most: float,
    ):
        plugin: Any = accelerator.state.deepspeed_plugin
        config = plugin.deepspeed_config
        # examples are counted by lorakit, so that DeepSpeed divides by nothing
        config |= {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": most,
        }
        config |= {"train_batch_size": accelerator.num_processes, "steps_per_print": 10**9}
        config["zero_allow_untested_optimizer"] = True
        # DeepSpeed 0.19 calls it by the name that torch 2.13 gives up
        warnings.filterwarnings("ignore", ".*all_gather_into_tensor", FutureWarning)
        super().__init__(accelerator, model, optimizer)

    @contextmanager
    def micro(self, last: bool) -> Iterator[None]:
        engine: Any = self.model
        engine.set_gradient_accumulation_boundary(last)
        yield

    def backward(self, loss: Tensor) -> None:
        engine: Any = (
            self.model
        )  # accelerate's own would update at once, before anyone has seen the gradients
        engine.backward(loss * self.accelerator.num_processes)

    def gradient(self, parameter: nn.Parameter) -> Tensor | None:
        from deepspeed.utils import safe_get_full_grad  # type: ignore[import-not-found]

        return safe_get_full_grad(parameter)

    def clip(self, parameters: Collection[nn.Parameter], most: float) -> Tensor:
        """The engine clips, when it updates."""
        found = [self.gradient(p) for p in parameters]
        return torch.stack([g.float().norm() for g in found if g is not None]).norm()

    def step(self) -> None:
        engine: Any = self.model
        engine.step()


def prepared(
    accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer, most: float
) -> Exchange:
    """The model and its optimizer, spread as accelerate was launched. most: gradients' norm, or 0 for any."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return ZeRO(accelerator, model, optimizer, most)
    return (Sharded if is_sharded(accelerator) else Exchange)(accelerator, model, optimizer)


def is_sharded(accelerator: Accelerator) -> bool:
    return accelerator.distributed_type == DistributedType.FSDP


def strategy() -> str:
    """How this process shares a model with others: `ddp`, `fsdp2`, `zero2`; `none` where it is the only one."""
    if not is_initialized() or AcceleratorState().num_processes == 1:
        return "none"
    words = {DistributedType.FSDP: "fsdp2", DistributedType.DEEPSPEED: "zero2"}
    return words.get(AcceleratorState().distributed_type, "ddp")


def on_cpus(asked: bool) -> bool:
    """What to tell an Accelerator about `cpu`, so that launched processes find each other where there is no GPU."""
    cpu = asked or (
        int(os.environ.get("WORLD_SIZE", 1)) > 1 and not torch.accelerator.is_available()
    )
    if cpu and os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        PartialState(
            cpu=True
        )  # an Accelerator told so itself, accelerate 1.15 leaves DeepSpeed out without a word
        return False
    return cpu


def keeps_checkpoints(accelerator: Accelerator) -> bool:
    """DeepSpeed's optimizer has its state in a form of its own, which is not saved."""
    return accelerator.distributed_type != DistributedType.DEEPSPEED


def check_strategy(accelerator: Accelerator, precision: str, settings: Train) -> None:
    """After an Accelerator was made. RecipeError: a way to spread the model that lorakit does not train with."""
    state: Any = accelerator.state
    if (
        accelerator.distributed_type == DistributedType.MULTI_CPU
        and os.environ.get("ACCELERATE_USE_FSDP") == "true"
    ):
        # accelerate 1.15 takes FSDP for GPUs alone, and trains with DDP elsewhere without a word
        from accelerate.utils import FullyShardedDataParallelPlugin

        state.fsdp_plugin = FullyShardedDataParallelPlugin()
        state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    if is_sharded(accelerator):
        if not accelerator.is_fsdp2:
            raise RecipeError(
                "FSDP's first version is not trained with; set fsdp_version: 2 in accelerate's config"
            )
        if state.fsdp_plugin.cpu_ram_efficient_loading:
            raise RecipeError(
                "set fsdp_cpu_ram_efficient_loading: false: each process reads and scores the base"
            )
        if settings.compile:
            raise RecipeError(
                "with FSDP2 train.compile must be left out: its parts are put together as a layer begins"
            )
        state.fsdp_plugin.mixed_precision_policy = None
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        if state.deepspeed_plugin.zero_stage > 2:
            raise RecipeError("DeepSpeed ZeRO-3 is not trained with; take zero_stage: 2, or FSDP2")
        if precision != "no":
            raise RecipeError(
                "with DeepSpeed train.precision must be fp32: it would round the trained weights themselves to "
                f"{precision}; take FSDP2 or DDP"
            )
        if (
            settings.skip_bad_steps
        ):  # the engine drops what it has gathered of a gradient only in an update
            raise RecipeError(
                "with DeepSpeed train.skip_bad_steps must be 0: no step can be left out"
            )
