"""One self-contained page per run: nothing is fetched, whatever it is opened with."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorakit.recipe.source import written
from lorakit.report.changes import change_maps
from lorakit.report.curves import Logs, loss_curve, rate_curve, score_curves
from lorakit.report.table import (
    NOTHING,
    Table,
    main_metric,
    measured,
    number,
    published,
    score_table,
    verdict,
)
from lorakit.runs.result import Check, Result, failed_checks, summary, write_whole

HERE = Path(__file__).parent
SAMPLES = 6
"""Of each kind: those that are a reference to the letter, and those that are none."""
REFERENCES = 4


@dataclass(frozen=True)
class Fact:
    """A number at the head of the page. tone: good, bad, or nothing."""

    label: str
    value: str
    detail: str = ""
    tone: str = ""


def write_page(
    folder: Path, result: Result, logs: Logs, samples: Sequence[Mapping[str, Any]]
) -> Path:
    """report.html in `folder`, whole or not at all. samples: lines of predictions.jsonl, with their `input`."""
    path = folder / "report.html"
    write_whole(path, render(result, logs, samples))
    return path


def fill(template: Path, **values: Any) -> str:
    """A page as text. Tables and pictures are escaped where they are made; all else is escaped here."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    env = Environment(
        loader=FileSystemLoader([template.parent, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "short": short,
        "html": lambda table: Markup(table.html()),
        "svg": lambda p: Markup(p.svg),
    }
    return env.get_template(template.name).render(**values)


def render(result: Result, logs: Logs, samples: Sequence[Mapping[str, Any]]) -> str:
    """The page of a run; everything that comes from the run is escaped."""
    pictures = [*score_curves(logs, result), *loss_curve(logs), *rate_curve(logs)]
    scores = score_table(result)
    return fill(
        HERE / "page.html.j2",
        result=result,
        facts=facts(result),
        scores=Table(scores.header, scores.rows, names=scores.names),
        checks=checks(result),
        pictures=pictures,
        changes=change_maps(result),
        seeds=seed_table(result, logs),
        samples=chosen(samples),
        recipe=written(result.recipe_values),
        environment=flat(
            {key: value for key, value in result.environment.items() if key != "command"}
        ),
    )


def facts(result: Result) -> list[Fact]:
    """What a reader wants first."""
    rows = [row for row in summary(result) if row.metric == result.primary]
    counts, failed = result.counts, failed_checks(result)
    of = sum(len(seed.checks) for seed in result.seeds)
    share = (
        f"{100 * counts.trainable / counts.total:.3g} % of {counts.total:,}" if counts.total else ""
    )
    numbers = ", ".join(str(seed.seed) for seed in result.seeds)
    found = [Fact(f"{row.metric}, {row.split}", measured(row), *_beside(row)) for row in rows]
    found += [
        Fact("trainable", f"{counts.trainable:,}", share),
        Fact("adapted weights", f"{counts.sites:,}"),
        *([Fact("new head", f"{counts.fresh:,}", "trained too")] if counts.fresh else []),
        Fact("seeds" if len(result.seeds) > 1 else "seed", numbers),
    ]
    if of:
        passed = Fact("checks", f"{of} of {of} passed", tone="good")
        found.append(
            Fact("checks", f"{len(failed)} of {of} failed", tone="bad") if failed else passed
        )
    return found


def _beside(row: Any) -> tuple[str, str]:
    if row.published is None:
        return "", ""
    said = verdict(row)
    tone = {"inside": "good", "outside": "bad"}.get(said, "")
    return f"published {published(row)}" + (f": {said}" if said != NOTHING else ""), tone


def checks(result: Result) -> list[tuple[Check, list[Check | None]]]:
    """Every check by name, with what each seed found (None where a seed does not have it)."""
    of = [{check.name: check for check in seed.checks} for seed in result.seeds]
    first: dict[str, Check] = {}
    for seed in of:
        first = seed | first
    return [(check, [seed.get(name) for seed in of]) for name, check in first.items()]


def short(value: float) -> str:
    """Two digits, small numbers by their power of ten."""
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.2g}"


def seed_table(result: Result, logs: Logs) -> Table:
    """A row per seed: its score, how long it trained, what was kept, speed and memory."""
    split, metric = main_metric(result)
    phases = list(dict.fromkeys(phase for seed in result.seeds for phase in seed.seconds))
    header = (
        "seed",
        metric,
        "kept epoch",
        "epochs",
        "steps",
        *(f"{phase}, s" for phase in phases),
        "tokens/s",
        "MiB",
    )
    rows = tuple(
        (
            str(s.seed),
            number(s.scores.get(split, {}).get(metric)),
            NOTHING if s.best_epoch is None else f"{round(s.best_epoch, 2):g}",
            f"{round(s.epochs, 2):g}",
            f"{s.steps:,} of {s.planned_steps:,}" if s.not_trained else f"{s.steps:,}",
            *(f"{s.seconds[phase]:,.1f}" if phase in s.seconds else NOTHING for phase in phases),
            _of(logs.get(s.seed, ()), "tokens_per_second", statistics.median),
            _of(logs.get(s.seed, ()), "memory_mib", max),
        )
        for s in result.seeds
    )
    return Table(header, rows)


def _of(lines: Sequence[Mapping[str, Any]], key: str, reduce: Any) -> str:
    values = [line[key] for line in lines if line["event"] == "step" and line.get(key) is not None]
    return f"{reduce(values):,.0f}" if values else NOTHING


def chosen(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """SAMPLES that are no reference, then SAMPLES that are one, evenly spread over the lines."""
    kinds: dict[bool, list[Mapping[str, Any]]] = {False: [], True: []}
    for line in lines:
        kinds[sample(line)["same"]].append(line)
    counts = {same: min(SAMPLES, len(of)) for same, of in kinds.items()}
    return [
        sample(of[i * len(of) // counts[same]])
        for same, of in kinds.items()
        for i in range(counts[same])
    ]


def sample(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of predictions.jsonl as text: input, references, prediction, and whether it is one of the references.

    Of many references REFERENCES are given, the one that was met first; more: how many are not.
    """
    given = line.get("references", line.get("reference"))
    references = [_text(one) for one in (given if isinstance(given, (list, tuple)) else [given])]
    prediction = _text(line.get("prediction"))
    shown = sorted(references, key=lambda one: one != prediction)[:REFERENCES]
    return {
        "input": _text(line.get("input")),
        "references": shown,
        "prediction": prediction,
        "same": prediction in references,
        "more": len(references) - len(shown),
    }


def _text(value: Any) -> str:
    if value is None:
        return NOTHING
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def flat(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of every entry, those of a group one by one; what is not there is left out."""
    rows = []
    for key, value in environment.items():
        if isinstance(value, Mapping):
            rows += [(f"{key}: {name}", str(one)) for name, one in value.items()]
        elif value is not None:
            rows.append(
                (
                    key,
                    ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value),
                )
            )
    return rows
