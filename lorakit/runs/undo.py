"""A run that is refused before it began leaves the folder as it was: none, or the one from
before."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorakit.errors import InputError
from lorakit.runs.inputs import FILE

RECORDS = ("recipe.yaml", "data.json", FILE)


@contextmanager
def undone_if_refused(run: Path, restart: bool) -> Iterator[None]:
    """Inside, a run is made; what is refused (InputError) before a first step leaves nothing of it.

    restart: a run that is there is put aside, and is back after a refusal. InputError: it cannot
    be.
    """
    aside = run.with_name(f".{run.name}.before")
    shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
    whole = run.exists()
    if restart and whole and not run.is_symlink():
        _rename(run, aside)
        whole = False
    kept = {file: file.read_bytes() for name in RECORDS if (file := run / name).is_file()}
    seeds = set(run.glob("seed*"))
    try:
        yield
    except InputError:
        if not whole and not any(map(_began, run.glob("seed*"))):
            shutil.rmtree(run, ignore_errors=True)
            if aside.exists():
                _rename(aside, run)
        elif whole:
            _restore(run, kept, seeds)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _began(seed: Path) -> bool:
    """A step was taken here, or more."""
    journal = seed / "metrics.jsonl"
    holds = any(seed.glob("checkpoints/step-*")) or (seed / "result.json").is_file()
    return holds or (journal.is_file() and journal.stat().st_size > 0)


def _restore(run: Path, kept: dict[Path, bytes], seeds: set[Path]) -> None:
    """Of a folder that was there: the seeds that did not begin go, and its records are what they
    were."""
    new = [seed for seed in run.glob("seed*") if seed not in seeds]
    if any(map(_began, new)):
        return
    for seed in new:
        shutil.rmtree(seed, ignore_errors=True)
    for file, data in kept.items():
        if file.read_bytes() != data:
            file.write_bytes(data)


def _rename(run: Path, to: Path) -> None:
    try:
        run.rename(to)
    except OSError as error:
        raise InputError(
            f"cannot write to the run folder {run}: {error.strerror}; take another, --runs DIR"
        ) from error
