"""What is written is on the disk, not only on its way there: a power cut loses no file that was said to be whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from glob import escape
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


def scratch_for(folder: Path) -> Path:
    """The hidden folder beside `folder` in which it is written before it is renamed. What processes that were killed
    left of earlier attempts is removed: it may be as large as a model."""
    for left in folder.parent.glob(f".{escape(folder.name)}.*"):
        pid = left.suffix.removeprefix(".")
        if pid.isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    return folder.with_name(f".{folder.name}.{os.getpid()}")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True


def file_digest(path: Path) -> str:
    """Of a file's bytes. OSError: it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
