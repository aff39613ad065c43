"""The run folder: runs/NAME-HASH/seedN/. The hash is of the resolved recipe, so the same command finds its run again.

recipe.yaml        the resolved recipe; `lorakit train runs/NAME-HASH` runs it again
result.json        scores beside published ones, checks, counts, environment; where it is, the run is whole
report.html        the same as a page, with curves
seed0/adapter/     PEFT's format (LoRA), or trained.safetensors
seed0/checkpoints/ while it trains: what the same command goes on from
seed0/metrics.jsonl, seed0/predictions/SPLIT.jsonl, seed0/environment.json
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from lorakit.config import first_problem
from lorakit.errors import DataError, InputError, LorakitError, RecipeError, did_you_mean
from lorakit.recipe.load import Loaded, build
from lorakit.recipe.schema import Recipe
from lorakit.recipe.source import dump_yaml
from lorakit.runs.result import Result, SeedResult, write_whole
from lorakit.tasks import Example


def folder_of(loaded: Loaded, runs: Path) -> Path:
    """Where this recipe's run goes: NAME-HASH. The hash is of the values that were set to something other than the
    schema's defaults, so that a new field with a default leaves it as it is; seeds, expectations and descriptions are
    not part of it, nor is what leaves every number as it is, such as how often a checkpoint is written."""
    said = what_matters(set_values(loaded.recipe))
    digest = hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=8).hexdigest()
    return runs / f"{loaded.name.replace('/', '-')}-{digest}"


_HASH = re.compile(r"-([0-9a-f]{16}|[0-9a-f]{6})")
"""At the end of a run folder's name; versions up to 0.1.0 wrote six digits."""


def stem_of(run: Path) -> str | None:
    """The recipe's name in a run folder's name; None: it is not the name of a run folder."""
    match = re.fullmatch(rf"(.+?){_HASH.pattern}", run.name)
    return None if match is None else match[1]


def runs_named(runs: Path, stem: str | None = None) -> list[Path]:
    """The folders under `runs` that are called as runs are, of the recipe name `stem` if it is given."""
    found = sorted(runs.iterdir()) if runs.is_dir() else []
    return [run for run in found if stem_of(run) is not None and stem in (None, stem_of(run))]


def set_values(config: BaseModel) -> dict[str, Any]:
    """The values that differ from their defaults, as plain data; names are always among them."""
    said = {}
    plain = config.model_dump(mode="json")
    for key, field in type(config).model_fields.items():
        value = getattr(config, key)
        if isinstance(value, BaseModel):
            if inside := set_values(value):
                said[key] = inside
        elif key == "name" or value != field.get_default(call_default_factory=True):
            said[key] = plain[key]
    return said


def what_matters(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Of a recipe as plain data, all that a seed's numbers depend on."""
    said = {k: v for k, v in recipe.items() if k not in ("seeds", "expect", "about")}
    model = said.get("model")
    if isinstance(model, Mapping):
        said["model"] = {k: v for k, v in model.items() if k != "id"}
    train = said.get("train")
    if isinstance(train, Mapping):
        said["train"] = {
            k: v for k, v in train.items() if k not in ("checkpoint", "skip_bad_steps")
        }
    return said


def seed_folder(run: Path, seed: int) -> Path:
    return run / f"seed{seed}"


def open_run(run: Path, recipe: Recipe, restart: bool) -> None:
    """Make the folder and write the resolved recipe. InputError: no permission, disk full, a file in the way."""
    try:
        if restart and run.exists():
            shutil.rmtree(run)
        run.mkdir(parents=True, exist_ok=True)
        write_whole(run / "recipe.yaml", dump_yaml(recipe.plain()))
    except OSError as error:
        why = error.strerror or error  # rmtree's own, for a link, has no strerror
        raise InputError(
            f"cannot write to the run folder {run}: {why}; take another, --runs DIR"
        ) from error


@contextmanager
def claimed(run: Path) -> Iterator[None]:
    """Inside, no other process trains in this folder. InputError: one does. A process that dies lets go of it."""
    make_folder(run.parent)
    lock = FileLock(run.with_name(f".{run.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"another process trains in {run}; wait for it, or take another folder, --runs DIR"
        ) from None
    try:
        yield
    finally:
        lock.release()  # the file stays: removed, it could be another process's by now


def refuse_other_data(run: Path, splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """What could not be compared. InputError, with the difference: the run's seeds were trained on other examples."""
    file = run / "data.json"
    if not file.is_file():
        return ["the data: no digests were recorded"]
    before = _read_json(file)
    if not isinstance(before, dict):
        raise InputError(
            f"{file} is damaged: what the seeds were trained on is not known. {_FRESH}"
        )
    found = digests_of(splits)
    changes = [
        _change(name, before.get(name), now)
        for name, now in found.items()
        if before.get(name) != now
    ]
    if gone := sorted(set(before) - set(found)):
        changes.append(f"{gone[0]} is not scored any more")
    if changes:
        raise InputError(
            f"{run} holds seeds that were trained on other data ({'; '.join(changes)}). {_FRESH}"
        )
    return []


def record_data(run: Path, splits: Mapping[str, Sequence[Example]]) -> None:
    """Remember what the run's examples are."""
    write_whole(run / "data.json", json.dumps(digests_of(splits), indent=2) + "\n")


def digests_of(splits: Mapping[str, Sequence[Example]]) -> dict[str, dict[str, Any]]:
    return {name: {"examples": len(rows), "digest": _digest(rows)} for name, rows in splits.items()}


_FRESH = "--restart trains them again, and another folder (--runs DIR) keeps them."


def same_recipe(run: Path, recipe: Recipe) -> None:
    """InputError, with the difference, where the run's seeds were trained with other values than the recipe's."""
    if not begun(run) and not (run / "result.json").is_file():
        return
    try:
        before = what_matters(build(run / "recipe.yaml").recipe.plain())
    except LorakitError as error:
        raise InputError(
            f"{run} holds trained seeds, and what they were trained with is not known: {error}. {_FRESH}"
        ) from error
    if changes := differences(before, what_matters(recipe.plain())):
        raise InputError(f"{run} was trained with another recipe ({'; '.join(changes)}). {_FRESH}")


def differences(then: Any, now: Any, where: str = "") -> list[str]:
    """`train.warmup was 0.1, is 0.2`, of every value that differs."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*then, *now])
        return [
            d
            for k in keys
            for d in differences(then.get(k), now.get(k), f"{where}.{k}" if where else str(k))
        ]
    return [] if then == now else [f"{where} was {_short(then)}, is {_short(now)}"]


def _short(value: Any) -> str:
    said = "not given" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return said if len(said) <= 60 else said[:57] + "..."


def unfinished_others(run: Path, recipe: Recipe) -> dict[Path, list[str]]:
    """Runs of the same recipe name beside `run` that were stopped, and how their recipes differ."""
    values = what_matters(recipe.plain())
    found = {}
    for other in runs_named(run.parent, stem_of(run)):
        if (
            other != run
            and not (other / "result.json").is_file()
            and any(other.glob("seed*/checkpoints/step-*"))
        ):
            before = _recorded(other)
            if before is not None:
                found[other] = differences(what_matters(before), values)
    return found


def _recorded(run: Path) -> dict[str, Any] | None:
    """The recipe of a run as plain data; None where it is not one of this version."""
    try:
        return build(run / "recipe.yaml").recipe.plain()
    except LorakitError:
        return None


def begun(run: Path) -> bool:
    """A seed was trained here to its end, or as far as a checkpoint."""
    return any(run.glob("seed*/result.json")) or any(run.glob("seed*/checkpoints/step-*"))


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _change(name: str, then: Any, now: dict[str, Any]) -> str:
    count = then.get("examples") if isinstance(then, dict) else 0
    if count == now["examples"]:
        return f"{name}: as many examples, with other texts or answers"
    return f"{name}: {count} examples then, {now['examples']} now"


def _digest(examples: Sequence[Example]) -> str:
    """Of what is learnt and asked; where the files lie does not matter."""
    digest = hashlib.blake2b(digest_size=16)
    for e in examples:
        said = (
            e.id,
            e.text,
            e.pair,
            e.target,
            e.references,
            e.group,
            [(t.role, t.text) for t in e.turns],
        )
        digest.update(repr(said).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def read_seed(folder: Path) -> SeedResult | None:
    """result.json of a seed; None: there is none, so the seed was not trained to its end. InputError: it is damaged."""
    file = folder / "result.json"
    try:
        return SeedResult.model_validate_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        why = first_problem(error) if isinstance(error, ValidationError) else error.strerror
        raise InputError(
            f"{file} is damaged: {why}. Restore it from a copy, or train again with --restart."
        ) from error


def open_seed(folder: Path, goes_on: bool = False) -> None:
    """Make the folder of one seed anew; what a run that was cut off left there goes, or, where the run goes on, what is
    half written. InputError: it is no folder."""
    if goes_on:
        for path in [*folder.glob(".*"), *folder.glob("predictions/.*")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return
    if folder.is_symlink() or folder.is_file():
        raise InputError(
            f"{folder} is in the way: a {'link' if folder.is_symlink() else 'file'}; remove it"
        )
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)


def make_folder(path: Path) -> None:
    """InputError: no permission, disk full, a file in the way."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {path}: {error.strerror}; choose another"
        ) from error


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    make_folder(path.parent)
    write_whole(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """A JSONL file as far as it is whole: the last line may have been cut off while it was written."""
    found = []
    for line in (
        path.read_bytes().splitlines() if path.is_file() else ()
    ):  # of text, U+2028 would end a line too
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict):
            break
        found.append(row)
    return found


def is_run(path: Path) -> bool:
    return (path / "recipe.yaml").is_file()


def is_seed(path: Path) -> bool:
    """The folder of one seed of a run."""
    return not is_run(path) and is_run(path.parent) and path.name.startswith("seed")


def choose_seed(run: Path, seed: int | None) -> tuple[Path, str]:
    """The folder of one seed of a run, and a word on why: the one asked for, the only one, or the best scored."""
    if is_seed(run):
        if seed is not None and run.name != f"seed{seed}":
            raise RecipeError(
                f"{run} is one seed, and seed {seed} was asked for; give {run.parent}"
            )
        return run, "the seed given"
    found = {
        int(p.parent.name[4:]): p.parent
        for p in run.glob("seed*/adapter")
        if p.parent.name[4:].isdigit()
    }
    if not found:
        raise RecipeError(f"{run} holds no trained adapter yet; did its training end?")
    if seed is not None:
        if seed not in found:
            raise RecipeError(
                f"{run} has no seed {seed} (it has: {', '.join(map(str, sorted(found)))})"
            )
        return found[seed], "the seed asked for"
    if len(found) == 1:
        return next(iter(found.values())), "the only seed"
    return _best(run, found)


def _best(run: Path, found: dict[int, Path]) -> tuple[Path, str]:
    among = ", ".join(map(str, sorted(found)))
    try:
        result = Result.read(run / "result.json")
    except DataError as error:
        raise RecipeError(
            f"which of the seeds {among} is the best is not known: {error}. Or give --seed"
        ) from error
    scores = {
        s.seed: s.scores.get(result.splits[0], {}).get(result.primary, math.nan)
        for s in result.seeds
    }
    scored = {
        seed: value for seed, value in scores.items() if seed in found and not math.isnan(value)
    }
    if not scored:
        raise RecipeError(
            f"{run}/result.json has no {result.primary} of the seeds {among}; give --seed"
        )
    return found[
        max(scored, key=scored.__getitem__)
    ], f"the best of {len(scored)} seeds by {result.primary}"


def find_adapter(name_or_path: str, runs: Path, of: Recipe | None = None) -> Path:
    """For `start_from`: an adapter folder, a run, or the newest finished run of a recipe of that name.

    of: what starts from it. Another method's run is none then, nor is a trial on a slice of the data; one with the very
    same method comes before a newer one.
    """
    path = Path(name_or_path)
    if is_run(path) or is_seed(path):
        return choose_seed(path, None)[0] / "adapter"
    if path.is_dir():
        return path
    stem = name_or_path.replace("/", "-")
    plain = of.plain() if of is not None else None
    finished = {f: _fits(f, plain) for f in runs_named(runs, stem) if (f / "result.json").is_file()}
    if fits := {f: fit for f, fit in finished.items() if fit}:
        return (
            choose_seed(
                max(fits, key=lambda f: (fits[f], (f / "result.json").stat().st_mtime)), None
            )[0]
            / "adapter"
        )
    known = sorted({str(stem_of(run)) for run in runs_named(runs)} - {stem})
    but = (
        f" with the method {of.method.name} and all the data" if of is not None and finished else ""
    )
    raise RecipeError(
        f"start_from: {name_or_path!r} is no adapter folder, and {runs}/ holds no finished run of that name{but}"
        f"{did_you_mean(stem, known)}. Run `lorakit train {name_or_path}` first, give start_from=FOLDER, "
        "or begin from the pretrained model with `~start_from`."
    )


def _fits(run: Path, of: Mapping[str, Any] | None) -> int:
    """0: nothing to start `of` from; 1: its method, with other numbers; 2: the same."""
    if of is None:
        return 1
    there = _recorded(run) or {}
    limit, method = there.get("data", {}).get("limit"), there.get("method", {})
    if method.get("name") != of["method"]["name"] or (limit and limit != of["data"]["limit"]):
        return 0
    return 2 if method == of["method"] else 1
