"""One self-contained page per run: nothing is fetched, whatever it is opened with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lorakit.report.curves import Logs, heat_map, loss_curve, rate_curve, score_curves
from lorakit.report.result import Result
from lorakit.report.table import Table, number, score_table


def write_page(folder: Path, result: Result, logs: Logs, samples: Sequence[Mapping[str, Any]]) -> Path:
    """report.html in `folder`, whole or not at all. samples: lines of predictions.jsonl, with their `input`."""
    path = folder / "report.html"
    temporary = folder / f".report.html.{os.getpid()}"
    temporary.write_text(render(result, logs, samples), encoding="utf-8")
    temporary.replace(path)
    return path


def render(result: Result, logs: Logs, samples: Sequence[Mapping[str, Any]]) -> str:
    """The page as text; everything that comes from the run is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    # autoescape whatever the file is called; the pictures and tables are ours, and escaped where they are made
    env = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    scores = score_table(result)
    return env.get_template("page.html.j2").render(
        result=result,
        scores=Markup(Table(scores.header, scores.rows).html()),
        pictures=[Markup(p) for p in (loss_curve(logs), *score_curves(logs), rate_curve(logs))],
        heat=Markup(heat_map(result.seeds[0].delta_norms)),
        seconds=Markup(_seconds(result).html()),
        samples=[_sample(line) for line in samples],
        recipe=yaml.safe_dump(result.recipe_values, sort_keys=False, allow_unicode=True),
        environment=_flat(result.environment),
    )


def _seconds(result: Result) -> Table:
    phases = list(dict.fromkeys(phase for seed in result.seeds for phase in seed.seconds))
    rows = tuple(
        (str(s.seed), f"{s.epochs:g}", number(s.best_epoch), *(number(s.seconds.get(p)) for p in phases))
        for s in result.seeds
    )
    return Table(("seed", "epochs", "kept epoch", *(f"{phase}, s" for phase in phases)), rows)


def _sample(line: Mapping[str, Any]) -> dict[str, str]:
    references = line.get("references", line.get("reference"))
    shown = " / ".join(map(str, references)) if isinstance(references, list) else str(references)
    return {"input": str(line.get("input", "")), "reference": shown, "prediction": str(line.get("prediction", ""))}


def _flat(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for key, value in environment.items():
        if isinstance(value, Mapping):
            rows += [(f"{key}: {k}", str(v)) for k, v in value.items()]
        else:
            rows.append((key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows
