"""`lorakit analyze`: read what runs changed, ask one question of it, and write a table, a picture and the numbers."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lorakit
from lorakit.adapters.fingerprint import same
from lorakit.analysis._source import Choice, Trained, read_trained, seeds_of
from lorakit.analysis.amplification import amplification
from lorakit.analysis.full import truncation
from lorakit.analysis.intruders import EPSILON, TOP, intruders
from lorakit.analysis.norms import norms
from lorakit.analysis.rank import spectrum
from lorakit.analysis.report import amplification as amplification_report
from lorakit.analysis.report import full as full_report
from lorakit.analysis.report import intruders as intruders_report
from lorakit.analysis.report import norms as norms_report
from lorakit.analysis.report import rank as rank_report
from lorakit.analysis.report import subspace as subspace_report
from lorakit.analysis.subspace import overlaps
from lorakit.errors import AdapterError, InputError
from lorakit.report.picture import Picture
from lorakit.report.table import Table
from lorakit.runs.folder import is_run, is_seed, make_folder
from lorakit.runs.result import Result, write_whole

log = logging.getLogger(__name__)

LORA, FULL, ALL = ("lora",), ("full",), Choice()


@dataclass(frozen=True)
class Request:
    """What is asked of which runs. choice: which weights. base, seed, any_base: as `lorakit eval` takes them."""

    runs: Sequence[str]
    choice: Choice = ALL
    base: str | None = None
    seed: int | None = None
    any_base: bool = False
    epsilon: float | None = None
    """intruders: a smaller cosine is none."""
    top: int | None = None
    """intruders: how many singular vectors are looked at."""

    def read(self, path: str, methods: Sequence[str], weights: bool) -> Trained:
        return read_trained(
            path, methods, weights, self.choice, self.base, self.seed, self.any_base
        )

    def read_all(self, methods: Sequence[str], weights: bool) -> list[Trained]:
        return [self.read(path, methods, weights) for path in self.runs]


@dataclass(frozen=True)
class Answer:
    """found: run -> what was found at its sites, or the sites of a pair. note: one line on what it comes to."""

    trained: Sequence[Trained]
    found: Any
    table: Table
    picture: Picture
    note: str = ""
    more: dict[str, Any] | None = None

    def values(self, what: str) -> dict[str, Any]:
        """As plain data, for WHAT.json."""
        runs = [trained.facts() for trained in self.trained]
        found = (
            [asdict(f) for f in self.found]
            if isinstance(self.found, list)
            else {name: [asdict(f) for f in of] for name, of in self.found.items()}
        )
        return {
            "what": what,
            "lorakit": lorakit.__version__,
            "about": self.table.caption,
            "runs": runs,
            **(self.more or {}),
            "found": found,
        }


def analyze(what: str, request: Request, out: Path | None = None) -> tuple[Answer, list[Path]]:
    """Answer one of `QUESTIONS`, and write WHAT.json, WHAT.svg and WHAT.md to `out`, or analysis/ of the first run.

    InputError: the wrong number of runs, an option of another question; and what `read_trained` raises.
    """
    least, most, ask = QUESTIONS[what]
    if not least <= len(request.runs) <= most:
        raise InputError(f"{what} takes {_count(least, most)}; {len(request.runs)} were given")
    if what != "intruders" and (request.epsilon is not None or request.top is not None):
        raise InputError(f"--epsilon and --top are for intruders, not for {what}")
    answer = ask(request)
    folder = out or _folder(answer.trained[0])
    make_folder(folder)
    files = [folder / f"{what}.{suffix}" for suffix in ("json", "svg", "md")]
    write_whole(
        files[0],
        json.dumps(answer.values(what), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
    )
    write_whole(files[1], answer.picture.document)
    note = f"{answer.note}\n\n" if answer.note else ""
    picture = f"![{answer.picture.title}]({what}.svg)"
    write_whole(files[2], f"# {what}\n\n{answer.table.markdown()}\n\n{note}{picture}\n")
    return answer, files


def _count(least: int, most: int) -> str:
    return (
        "one run"
        if most == 1
        else f"{least} run or more"
        if most > 2
        else f"{least} or {most} runs"
    )


def _folder(trained: Trained) -> Path:
    place = Path(trained.source.path)
    if is_run(place) or is_seed(place):
        return (place if is_run(place) else place.parent) / "analysis"
    notebook = trained.source.notebook
    return notebook.with_name(f"{notebook.name.removesuffix('-eval')}-analysis")


def _named(trained: Sequence[Trained]) -> dict[str, Trained]:
    """By label; InputError where one is given twice."""
    found = {one.label: one for one in trained}
    if len(found) < len(trained):
        raise InputError(f"{', '.join(one.label for one in trained)}: one of these is given twice")
    return found


def _of_other_bases(fingerprints: list[str]) -> bool:
    """Also where they have no digest in common: nothing then says that the base is the same."""
    return any(same(a, b) is not True for a, b in itertools.combinations(fingerprints, 2))


def _subspace(request: Request) -> Answer:
    paths = request.runs if len(request.runs) > 1 else seeds_of(request.runs[0])
    trained = sorted(
        (request.read(path, LORA, False) for path in paths), key=lambda one: one.rank or 0
    )
    names = _named(trained)
    if _of_other_bases([one.base for one in trained if one.base]) and not request.any_base:
        raise AdapterError(
            f"{' and '.join(names)} were trained on other base weights, so their directions are of different spaces. "
            "Give runs of one base, or --any-base to go on regardless."
        )
    for a, b in itertools.combinations(trained, 2):
        if a.seed is not None and a.seed == b.seed:
            log.warning(
                "%s and %s have one seed: with the same random numbers the A of the first weight began alike, and with "
                "the same r every A. What they share may be that; take another seed, %s/seedN.",
                a.label,
                b.label,
                _run_of(b.source.path),
            )
    found = overlaps([(a.changes, b.changes) for a, b in itertools.combinations(trained, 2)])
    between = " and ".join(names)
    if len(trained) > 2:
        between = f"{len(trained)} seeds of {Path(request.runs[0]).name}, r={trained[0].rank}"
    note = subspace_report.headline(found)
    return Answer(
        trained,
        found,
        subspace_report.table(found, between),
        subspace_report.picture(found, between),
        note,
    )


def _amplification(request: Request) -> Answer:
    runs = _named(request.read_all(LORA, True))
    found = {name: [amplification(c) for c in one.changes] for name, one in runs.items()}
    return Answer(
        list(runs.values()),
        found,
        amplification_report.table(found),
        amplification_report.picture(found),
    )


def _rank(request: Request) -> Answer:
    runs = _named(request.read_all(LORA + FULL, False))
    found = {name: [spectrum(c) for c in one.changes] for name, one in runs.items()}
    return Answer(list(runs.values()), found, rank_report.table(found), rank_report.picture(found))


def _full(request: Request) -> Answer:
    first, *others = request.runs
    trained = request.read(first, FULL, True)
    found = [truncation(change) for change in trained.changes]
    recipe = trained.source.recipe
    scores = [_score(path, recipe.task.name if recipe else None) for path in others]
    if others and (_run_of(first) / "result.json").is_file():
        scores = [
            full_report.score_of(trained.name, None, Result.read(_run_of(first) / "result.json")),
            *scores,
        ]
    table = full_report.table(trained.name, found, scores)
    kept = [
        {
            "name": s.name,
            "r": s.r,
            "metric": s.row.metric,
            "split": s.row.split,
            "values": s.row.values,
        }
        for s in scores
    ]
    return Answer(
        [trained],
        found,
        table,
        full_report.picture(trained.name, found, scores),
        more={"scores": kept},
    )


def _score(path: str, task: str | None) -> full_report.Score:
    """Of a LoRA run of the same task, from its result alone."""
    result = Result.read(_run_of(path) / "result.json")
    if task not in (None, result.task):
        raise InputError(
            f"{path} was trained on {result.task}, and the full run on {task}: other scores"
        )
    if result.method.get("name") != "lora":
        raise InputError(
            f"{path} was trained with {result.method.get('name')}; beside a full run LoRA runs are shown"
        )
    return full_report.score_of(_run_of(path).name, result.method["r"], result)


def _run_of(path: str) -> Path:
    return Path(path).parent if is_seed(Path(path)) else Path(path)


def _intruders(request: Request) -> Answer:
    epsilon = EPSILON if request.epsilon is None else request.epsilon
    top = TOP if request.top is None else request.top
    runs = _named(request.read_all(LORA + FULL, True))
    found = {name: [intruders(c, epsilon, top) for c in one.changes] for name, one in runs.items()}
    table, picture = (
        intruders_report.table(found, epsilon, top),
        intruders_report.picture(found, epsilon, top),
    )
    return Answer(list(runs.values()), found, table, picture, more={"epsilon": epsilon, "top": top})


def _norms(request: Request) -> Answer:
    (trained,) = request.read_all(LORA + FULL, True)
    found = [norms(change) for change in trained.changes]
    return Answer(
        [trained], found, norms_report.table(trained.label, found), norms_report.picture(found)
    )


QUESTIONS: dict[str, tuple[int, int, Callable[[Request], Answer]]] = {
    "subspace": (1, 2, _subspace),
    "amplification": (1, 99, _amplification),
    "rank": (1, 99, _rank),
    "full": (1, 99, _full),
    "intruders": (1, 99, _intruders),
    "norms": (1, 1, _norms),
}
"""Name -> least and most runs, and who answers."""
