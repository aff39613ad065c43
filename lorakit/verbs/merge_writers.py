"""Writers of a merged model: file by file, or from the complete model in memory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Protocol

from lorakit.adapters.shards import Shards
from lorakit.bases.base import DTYPES, Base
from lorakit.bases.config import read_config
from lorakit.bases.files import cached_of
from lorakit.bases.finite import refuse_merged
from lorakit.bases.padding import fit_padding
from lorakit.bases.tokenizer import tokenizer_of
from lorakit.methods import Attachment
from lorakit.models import Model
from lorakit.nn.tokens import fold_rows
from lorakit.runs.labels import keep_problem_type
from lorakit.runs.source import Source


class Writer(Protocol):
    """Writes the merged model, with its configuration and tokenizer, to a folder."""

    def write(self, folder: Path, dtype: str) -> None:
        """dtype: of the written weights. ModelError: a sum is not finite in it."""
        ...


class FileByFile:
    """Reads, merges and writes one tensor at a time, so that a large base need not fit in
    memory."""

    def __init__(self, shards: Shards, source: Source, model: Model, check_base: bool):
        self.shards, self.source, self.model = shards, source, model
        self.check_base = check_base

    def write(self, folder: Path, dtype: str) -> None:
        outline: Any = self.shards.base.model
        _keep_problem_type(self.source, self.model, outline.config)
        self.shards.write(folder, dtype, self.check_base)
        tokenizer = tokenizer_of(self.model)
        fit_padding(outline, tokenizer)
        # save_pretrained would set these two, and needs weights for that
        outline.config.architectures = [type(outline).__name__]
        outline.config.dtype = DTYPES[dtype]
        outline.config.save_pretrained(folder)
        if outline.can_generate():
            outline.generation_config.save_pretrained(folder)
            if own := cached_of(self.model, "generation_config.json"):
                shutil.copyfile(own, folder / own.name)
        tokenizer.save_pretrained(folder)


class InMemory:
    """Merges a loaded model: for every base and method that cannot be merged file by file."""

    def __init__(self, base: Base, attachment: Attachment, source: Source, model: Model):
        self.base, self.attachment = base, attachment
        self.source, self.model = source, model

    def write(self, folder: Path, dtype: str) -> None:
        merged: Any = self.base.model
        self.attachment.merge()
        fold_rows(merged)
        _keep_problem_type(self.source, self.model, self.base.config)
        merged.to(DTYPES[dtype])
        for name, parameter in merged.named_parameters():
            refuse_merged(name, parameter)
        merged.save_pretrained(folder)
        self.base.tokenizer.save_pretrained(folder)


def _keep_problem_type(source: Source, model: Model, config: Any) -> None:
    if source.recipe is None and source.head != "causal":
        keep_problem_type(config, read_config(model), len(source.labels) or 1)
