"""What is written is on the disk, not only on its way there: a power cut loses no file that was said to be whole."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk. OSError: there is no room for them, say."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_all(folder: Path) -> None:
    """Every file of a folder, then the folder."""
    for path in sorted(folder.iterdir()):
        if path.is_file():
            sync(path)
    sync(folder)
