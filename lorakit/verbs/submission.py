"""`lorakit submission`: the zip of eleven files that the GLUE server takes.

The paper has neither WNLI nor AX, and the server refuses a zip without them. They are filled with
their most frequent answer, which is said.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from lorakit.errors import InputError

ROWS = {
    "CoLA.tsv": 1063,
    "SST-2.tsv": 1821,
    "MRPC.tsv": 1725,
    "STS-B.tsv": 1379,
    "MNLI-m.tsv": 9796,
    "MNLI-mm.tsv": 9847,
    "QNLI.tsv": 5463,
    "QQP.tsv": 390965,
    "RTE.tsv": 3000,
    "WNLI.tsv": 146,
    "AX.tsv": 1104,
}
"""File -> official number of test rows."""
FREQUENT = {"WNLI.tsv": "0", "AX.tsv": "entailment"}
"""File -> its most frequent answer: WNLI's in its training set, AX's in its paper."""
HEADER = "index\tprediction"
# the oldest date of a zip, so that the same predictions give the same bytes
NO_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Submission:
    """What was written: the zip, where each file is from, and which were filled."""

    path: str
    files: Mapping[str, str]
    filled: Mapping[str, str]
    """File -> the answer of every row."""


def submission(places: Sequence[Path], to: Path) -> Submission:
    """Write the zip. places: files of `lorakit eval --split test`, or folders that hold them.

    InputError: a file is missing, is there twice, or does not have the official rows; or `to`
    exists.
    """
    if to.exists():
        raise InputError(f"{to} exists; give a new name with --to")
    found = _found(places)
    missing = [name for name in ROWS if name not in found and name not in FREQUENT]
    if missing:
        raise InputError(
            f"no {', '.join(missing)} in {', '.join(map(str, places))}; "
            "`lorakit eval RUN --split test` writes one for each GLUE task"
        )
    texts = {name: _checked(path) for name, path in found.items()}
    filled = {name: answer for name, answer in FREQUENT.items() if name not in found}
    for name, answer in filled.items():
        lines = [f"{index}\t{answer}" for index in range(ROWS[name])]
        texts[name] = "\n".join([HEADER, *lines, ""])
    _write(to, {name: texts[name] for name in ROWS})
    return Submission(str(to), {name: str(path) for name, path in found.items()}, filled)


def _write(to: Path, texts: Mapping[str, str]) -> None:
    """The zip, completely or not at all. InputError: it cannot be written."""
    # with_name refuses a path without a name, such as `.`
    temporary = to.parent / f".{to.name}.{os.getpid()}"
    try:
        with ZipFile(temporary, "w", ZIP_DEFLATED) as archive:
            for name, text in texts.items():
                info = ZipInfo(name, NO_DATE)
                info.compress_type = ZIP_DEFLATED
                archive.writestr(info, text)
        os.replace(temporary, to)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"cannot write {to}: {error.strerror}") from error


def _found(places: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for place in places:
        if not place.exists():
            raise InputError(f"{place} does not exist; give a run folder or a .tsv file")
        files = sorted(place.rglob("*.tsv")) if place.is_dir() else [place]
        for path in files:
            if path.name not in ROWS:
                continue
            if path.name in found:
                raise InputError(f"{path.name} is there twice: {found[path.name]} and {path}")
            found[path.name] = path
    return found


def _checked(path: Path) -> str:
    """The text of a file. InputError: it does not have the official rows in their order."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    indices = [line.partition("\t")[0] for line in lines[1:]]
    if lines[:1] != [HEADER] or indices != [str(i) for i in range(ROWS[path.name])]:
        raise InputError(
            f"{path}: not {ROWS[path.name]:,} rows of `{HEADER}` from 0 on; write it with "
            "`lorakit eval RUN --split test`, without data.limit"
        )
    return text
