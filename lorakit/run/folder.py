"""The run folder: runs/NAME-HASH/seedN/. The hash is of the resolved recipe, so the same command finds its run again.

recipe.yaml        the resolved recipe; `lorakit train runs/NAME-HASH` runs it again
result.json        scores beside published ones, checks, counts, environment; where it is, the run is whole
report.html        the same as a page, with curves
seed0/adapter/     PEFT's format (LoRA), or trained.safetensors
seed0/metrics.jsonl, seed0/predictions/SPLIT.jsonl, seed0/environment.json
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from lorakit.errors import InputError, RecipeError, did_you_mean
from lorakit.recipe.load import Loaded
from lorakit.recipe.schema import Recipe
from lorakit.report.result import Result, write_whole


def folder_of(loaded: Loaded, runs: Path) -> Path:
    """Where this recipe's run goes. Seeds, expectations and descriptions are not part of the hash."""
    said = {k: v for k, v in loaded.recipe.plain().items() if k not in ("seeds", "expect", "about")}
    digest = hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=3).hexdigest()
    return runs / f"{loaded.name.replace('/', '-')}-{digest}"


def seed_folder(run: Path, seed: int) -> Path:
    return run / f"seed{seed}"


def open_run(run: Path, recipe: Recipe, fresh: bool) -> None:
    """Make the folder and write the resolved recipe. InputError: no permission, disk full, a file in the way."""
    try:
        if fresh and run.exists():
            shutil.rmtree(run)
        run.mkdir(parents=True, exist_ok=True)
        write_whole(run / "recipe.yaml", yaml.safe_dump(recipe.plain(), sort_keys=False, allow_unicode=True))
    except OSError as error:
        raise InputError(f"cannot write to the run folder {run}: {error.strerror}; take another, --runs DIR") from error


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """A JSONL file; a last line that was cut off while it was written is left out."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def is_run(path: Path) -> bool:
    return (path / "recipe.yaml").is_file()


def choose_seed(run: Path, seed: int | None) -> tuple[Path, str]:
    """The folder of one seed of a run, and a word on why: the one asked for, the only one, or the best scored."""
    if not is_run(run) and is_run(run.parent) and run.name.startswith("seed"):
        return run, "the seed given"
    found = {int(p.parent.name[4:]): p.parent for p in run.glob("seed*/adapter") if p.parent.name[4:].isdigit()}
    if not found:
        raise RecipeError(f"{run} holds no trained adapter yet; did its training end?")
    if seed is not None:
        if seed not in found:
            raise RecipeError(f"{run} has no seed {seed} (it has: {', '.join(map(str, sorted(found)))})")
        return found[seed], "the seed asked for"
    if len(found) == 1:
        return next(iter(found.values())), "the only seed"
    result = Result.read(run / "result.json")
    best = max(result.seeds, key=lambda s: s.scores[result.splits[0]][result.primary])
    return found[best.seed], f"the best of {len(found)} seeds by {result.primary}"


def find_adapter(name_or_path: str, runs: Path) -> Path:
    """For `start_from`: an adapter folder, a run, or the newest finished run of a recipe of that name."""
    path = Path(name_or_path)
    if is_run(path) or path.name.startswith("seed"):
        return choose_seed(path, None)[0] / "adapter"
    if path.is_dir():
        return path
    stem = name_or_path.replace("/", "-")
    finished = [f for f in runs.glob(f"{stem}-??????") if (f / "result.json").is_file()]
    if finished:
        return choose_seed(max(finished, key=lambda f: (f / "result.json").stat().st_mtime), None)[0] / "adapter"
    known = sorted({f.name[:-7] for f in runs.glob("*-??????")})
    raise RecipeError(
        f"start_from: {name_or_path!r} is no adapter folder, and {runs}/ holds no finished run of that name"
        f"{did_you_mean(stem, known)}. Run `lorakit train {name_or_path}` first, give start_from=FOLDER, "
        "or begin from the pretrained model with `~start_from`."
    )
