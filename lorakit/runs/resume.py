"""Going on after a stop: which checkpoint, whether it is of this run, and metrics.jsonl as it was then."""

from __future__ import annotations

import json
import logging
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from pydantic import Field, ValidationError

from lorakit.adapters.fingerprint import same
from lorakit.config import Config, first_problem
from lorakit.errors import InputError
from lorakit.runs.folder import open_seed
from lorakit.runs.result import Scores
from lorakit.training import checkpoint
from lorakit.training.checkpoint import Saved
from lorakit.training.processes import keeps_checkpoints, strategy

log = logging.getLogger(__name__)


class Before(Config):
    """What a run adds to its checkpoints."""

    fingerprint: str
    """Of the base's weights."""
    base_scores: Scores
    journal: int = Field(ge=0)
    """Bytes of metrics.jsonl."""
    seconds: dict[str, float]
    made_with: dict[str, str]
    """What decides the last bits of a number: versions, device, threads, what processes share."""


def made_with() -> dict[str, str]:
    packages = {
        name: version(name)
        for name in ("torch", "transformers", "accelerate", "tokenizers", "numpy")
    }
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "python": platform.python_version(),
        **packages,
        "device": device,
        "threads": str(torch.get_num_threads()),
        "strategy": strategy(),
    }


def goes_on_from(folder: Path, accelerator: Accelerator) -> Saved | None:
    """The newest whole checkpoint of a seed, on every process; None: it begins anew, in an empty folder."""
    name: list[Any] = [None]
    saved = None
    if accelerator.is_main_process:
        checkpoint.clean(folder / "checkpoints")
        saved = checkpoint.newest(folder / "checkpoints")
        if saved is not None and not keeps_checkpoints(accelerator):
            raise InputError(
                f"{saved.folder}: DeepSpeed cannot go on from it; take DDP or FSDP2. --restart starts over."
            )
        open_seed(folder, resume=saved is not None)
        name = [None if saved is None else str(saved.folder)]
    broadcast_object_list(name)
    return checkpoint.read(Path(name[0])) if saved is None and name[0] is not None else saved


def before_of(saved: Saved, fingerprint: str, processes: int) -> Before:
    """What the run knew. InputError: it was of other weights. A warning where the last bits may differ."""
    try:
        before = Before.model_validate(saved.state.about)
    except ValidationError as error:
        raise InputError(
            f"{saved.folder} is none of this lorakit: {first_problem(error)}. --restart starts over."
        ) from None
    if same(before.fingerprint, fingerprint) is not True:
        raise InputError(
            f"{saved.folder} is of a run whose base model had other weights (fingerprint {before.fingerprint}, now "
            f"{fingerprint}). --restart starts over, or give the base that it had."
        )
    now = made_with()
    others = [f"{k} {v}, now {now.get(k)}" for k, v in before.made_with.items() if now.get(k) != v]
    if saved.state.processes != processes:
        others.append(f"{saved.state.processes} process(es), now {processes}")
    if others:
        log.warning(
            "%s was made with %s: the last bits may differ, and dropout does",
            saved.folder,
            "; ".join(others),
        )
    return before


class Journal:
    """metrics.jsonl, a line per step and evaluation, on disk as it happens; cut back to what a checkpoint knew."""

    def __init__(self, path: Path | None, at: int | None = None):
        self.path, self.at = path, at

    def __enter__(self) -> Journal:
        self.file = None
        if self.path is not None:
            self.file = self.path.open("a", encoding="utf-8", buffering=1)
            if self.at is not None:
                self._cut(self.path.read_bytes())
        return self

    def _cut(self, there: bytes) -> None:
        assert self.file is not None
        assert self.at is not None
        if len(there) < self.at:
            log.warning("%s was cut short: its curves have a gap", self.path)
        self.file.truncate(self.at if len(there) >= self.at else there.rfind(b"\n") + 1)
        self.file.seek(0, os.SEEK_END)

    def write(self, event: dict[str, Any]) -> None:
        if self.file is None:
            return
        try:
            self.file.write(json.dumps(event) + "\n")
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror}") from error

    def length(self) -> int:
        """In bytes, all of them on the disk."""
        if self.file is None:
            return 0
        self.file.flush()
        os.fsync(self.file.fileno())
        return self.file.tell()

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()
