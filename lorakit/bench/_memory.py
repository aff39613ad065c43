"""What one way of training keeps, in a process of its own, where nothing else has raised the peak; as a JSON line.

python -m lorakit.bench._memory full '{"batch": 8}' glue_mrpc
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorakit.adapters.save import save_adapter
from lorakit.bases.base import DTYPES
from lorakit.bench._base import Setting
from lorakit.bench._models import bare, fast, with_peft
from lorakit.bench._rounds import saved_bytes
from lorakit.bench.merge import about_of
from lorakit.bench.step import random_batch
from lorakit.fast import fast_training
from lorakit.fast.blocks import laid_out_bytes
from lorakit.models import family_of
from lorakit.recipe.load import load_recipe
from lorakit.recipe.schema import Recipe
from lorakit.tasks import Head
from lorakit.training.loss import loss_sum


def kept(way: str, recipe: Recipe, setting: Setting) -> dict[str, int]:
    """Bytes of a training step by what they are for, its measured peak, and the bytes of the saved weights."""
    imported = _resident("VmRSS")
    model, save = _WAYS[way](recipe, setting)
    batch, head = random_batch(recipe, model, setting), recipe.task.head
    lean = way == "lorakit" and head is Head.CAUSAL
    mixed = way == "full" and setting.precision == "bf16"  # the weights that train are fp32

    def loss() -> Tensor:
        with torch.autocast(setting.device, torch.bfloat16) if mixed else contextlib.nullcontext():
            return loss_sum(model, batch, head, lean=lean)

    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    _forget_peak(setting.device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    step()
    step()  # now with the optimizer's state beside it
    peak = _peak(setting.device) - (0 if setting.device == "cuda" else imported)
    state = [
        value
        for one in optimizer.state.values()
        for value in one.values()
        if torch.is_tensor(value)
    ]
    found = {
        "trained": sum(p.numel() for p in trained),
        "weights": _bytes([*model.parameters(), *model.buffers()]),
        "gradients": _bytes(p.grad for p in trained if p.grad is not None),
        "optimizer": _bytes(state),
        "activations": saved_bytes(loss, model),
        "peak": peak,
    }
    with fast_training(model):
        step()
        found["blocks"] = laid_out_bytes(model)
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "saved")
        weights = Path(folder, "saved").glob("*.safetensors")
        return found | {"file": sum(file.stat().st_size for file in weights)}


Made = tuple[Any, Callable[[Path], Any]]
"""A model in training mode, and what writes its weights into a folder."""


def _lorakit(recipe: Recipe, setting: Setting) -> Made:
    model, method = fast(_base(recipe, setting)), recipe.method
    if "dropout" in type(method).model_fields:
        method = method.model_copy(update={"dropout": setting.dropout})
    about, family = about_of(recipe, model), family_of(model.config.model_type)
    assert family is not None
    attachment = method.attach(model, family.places(model.config), about.fresh)
    return attachment.model.train(), lambda folder: save_adapter(folder, attachment, about)


def _full(recipe: Recipe, setting: Setting) -> Made:
    model = _base(recipe, setting).float().requires_grad_(True).train()
    return model, model.save_pretrained


def _peft(recipe: Recipe, setting: Setting) -> Made:
    method: Any = recipe.method
    model: Any = with_peft(
        _base(recipe, setting), method.r, int(method.alpha), setting.dropout
    ).train()
    return model, model.save_pretrained


_WAYS = {"lorakit": _lorakit, "full": _full, "peft": _peft}


def _base(recipe: Recipe, setting: Setting) -> Any:
    return bare(recipe, setting.layers, setting.dropout).to(
        setting.device, DTYPES[setting.precision]
    )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum({t.data_ptr(): t.nbytes for t in tensors}.values())


def _forget_peak(device: str) -> None:
    """The peak is that of training: making random weights in fp32 and casting them may have had a higher one."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):  # Linux
        Path("/proc/self/clear_refs").write_text("5")


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else _resident("VmHWM")


def _resident(what: str) -> int:
    """VmRSS: now; VmHWM: the most since the start, or since it was reset."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # no Linux: macOS counts in bytes, others in KiB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) * 1024


if __name__ == "__main__":
    asked = Setting(**json.loads(sys.argv[2]))
    print(json.dumps(kept(sys.argv[1], load_recipe(sys.argv[3], sys.argv[4:]).recipe, asked)))
