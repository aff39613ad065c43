"""Of several processes one says what went wrong: the first that failed, whose failure the others' follow from."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "DistBackendError",
    "DistNetworkError",
)
"""What gloo and NCCL say when another process is no longer there."""
PATIENCE = 5.0
"""Seconds that a process which lost another waits for torchrun to end it, so that the other's failure is the first."""


def first_to_fail() -> bool:
    """Whether no other process of this launch, on this machine, has said anything yet. A process alone is the first."""
    own = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not own:
        return os.environ.get("RANK", "0") == "0"
    try:
        (Path(own).parents[1] / "lorakit_failed").touch(
            exist_ok=False
        )  # in the launch's own folder, new each time
    except FileExistsError:
        return False
    except OSError:
        pass
    return True


def lost_another(error: BaseException) -> bool:
    """The error is that another process has ended. Returns after `PATIENCE`, if torchrun has not ended this one."""
    text = f"{type(error).__name__}: {error}"
    if "WORLD_SIZE" not in os.environ or not any(mark in text for mark in LOST):
        return False
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(PATIENCE)
    return True
