"""The data of METEOR 1.5 and of CoreNLP's tokeniser, in files of the package pycocoevalcap.

Both are Java programs. Only their data is read, from their archives and from the table of
paraphrases; the package is not imported, and no program is run.
"""

from __future__ import annotations

import logging
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile

from lorakit.errors import MetricError

log = logging.getLogger(__name__)

_INSTALL = '`pip install "lorakit[nlg]"`'
_METEOR = "meteor/meteor-1.5.jar"
_PARAPHRASES = "meteor/data/paraphrase-en.gz"
_TOKENIZER = "tokenizer/stanford-corenlp-3.4.1.jar"


class Data(NamedTuple):
    """Where the files are."""

    meteor: Path
    paraphrases: Path
    tokenizer: Path


def find(otherwise: str) -> Data | None:
    """Where the files are; None, with a warning, where one is missing. otherwise: the consequence,
    which the warning says."""
    try:
        return look()
    except FileNotFoundError as missing:
        log.warning("%s: %s; %s", missing, otherwise, _INSTALL)
        return None


def missing_nlg_data() -> str | None:
    """What is missing for METEOR and the official tokens, and how to install it; None if nothing
    is."""
    try:
        look()
    except FileNotFoundError as missing:
        return f"{missing}; {_INSTALL}"
    return None


def look() -> Data:
    """Where the files are. FileNotFoundError: the package or one of the files is missing."""
    return Data(_file(_METEOR), _file(_PARAPHRASES), _file(_TOKENIZER))


def _file(path: str) -> Path:
    spec = find_spec("pycocoevalcap")
    if spec is None:
        raise FileNotFoundError("the package pycocoevalcap is not installed")
    places = [Path(place) / path for place in spec.submodule_search_locations or ()]
    for file in places:
        if file.is_file():
            return file
    looked = ", ".join(map(str, places))
    raise FileNotFoundError(f"the package pycocoevalcap does not have {path} (looked for {looked})")


def entry(archive: Path, name: str) -> bytes:
    """A file in an archive. MetricError: it is not there, or the archive is damaged."""
    try:
        with ZipFile(archive) as files:
            return files.read(name)
    except (BadZipFile, KeyError, OSError, zlib.error) as failed:
        raise MetricError(
            f"{archive} does not have {name} as pycocoevalcap 1.2 does ({failed}): install it again"
        ) from None
