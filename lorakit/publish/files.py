"""The files of a folder that are uploaded, by their names in the repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lorakit.errors import InputError
from lorakit.runs.source import READ_FROM_HUB

UPLOADED = (*READ_FROM_HUB, ".md", ".gguf")
"""Endings of the files of a model: nothing that runs code when it is loaded."""
NAMES = ("Modelfile", "LICENSE", ".gitattributes")


@dataclass(frozen=True)
class UploadFile:
    """A file on this machine, and its path in the repository."""

    local: Path
    path: str
    size: int

    def plain(self) -> dict[str, str | int]:
        return {"path": self.path, "bytes": self.size, "from": str(self.local)}


def files_of(folder: Path, inside: str = "") -> list[UploadFile]:
    """The files to upload, sorted. inside: a folder of the repository.

    InputError: there are none, or one is of a kind that is not uploaded.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        if path.suffix not in UPLOADED and path.name not in NAMES:
            raise InputError(
                f"{path} is not a file of a model or an adapter, and is not uploaded; move it out "
                f"of {folder} first"
            )
        name = PurePosixPath(inside, *path.relative_to(folder).parts)
        found.append(UploadFile(path, str(name), path.stat().st_size))
    if not found:
        raise InputError(f"{folder} does not hold any files")
    return found
