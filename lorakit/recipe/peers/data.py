"""Peers' keys of the sections `data` and `task`."""

from __future__ import annotations

from typing import Any

from lorakit.recipe.peers._table import NOTHING, Given, NoCounterpart, if_true, only, row

_PACKING = "packing sample_packing neat_packing"


def _padding(value: Any, given: Given) -> Any:
    # a packed row is full, so that nothing is padded
    packs = any(given.get(key) for key in _PACKING.split())
    return "max_length" if value and not packs else NOTHING


def _limit(value: Any, _given: Given) -> Any:
    return {"train": value} if value else NOTHING


def _data_set(_value: Any, _given: Given) -> Any:
    raise NoCounterpart("give the file or data set as task.train")


def _validation(_value: Any, _given: Given) -> Any:
    raise NoCounterpart("give the file as task.validation")


def _share(value: Any, _given: Given) -> Any:
    if not value:
        return NOTHING
    raise NoCounterpart(f"keep {value!r} of the rows in a file of their own: task.validation")


_CHAT = "the assistant's turns are trained, and what the user says never is"

ROWS = (
    row(
        "cutoff_len sequence_len max_seq_length max_length model_max_length max_seq_len",
        "data.max_length",
    ),
    row(_PACKING, "data.packing", if_true(True), "the examples of a row never see each other"),
    row("pad_to_max_length pad_to_sequence_len", "data.padding", _padding),
    row("max_samples max_train_samples", "data.limit", _limit),
    row("dataset datasets dataset_name train_file data_path", "task.train", _data_set),
    row("eval_dataset test_datasets validation_file", "task.validation", _validation),
    row("val_size val_set_size eval_split_ratio test_size", "task.validation", _share),
    row("train_on_inputs train_on_prompt", value=only((None, False), _CHAT), why=_CHAT),
    row("mask_history", "task.train_on", if_true("last")),
    row("assistant_only_loss completion_only_loss", value=only((None, True), _CHAT), why=_CHAT),
    row("dataset_dir dataset_path dataset_prepared_path", why="paths are given with each file"),
    row("dataset_text_field", "task.prompt", why="the column with the text"),
)
