"""Keeps what `lorakit analyze` found in results/: without paths, with the means that pages print.

    python scripts/keep_analysis.py OUT/dct.json analyses/dct.json \
        --called minilm-glue_sst2-17edae749e1746ed='LoRA r=1'
    python scripts/keep_analysis.py RUN/seed0/metrics.jsonl analyses/rotation.json --called q=...

Of a metrics.jsonl, the last rotation of each weight is kept. Lists of numbers (singular values,
readings) and the names of files are left out.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from lorakit.analysis._sites import labels
from lorakit.runs.result import write_whole

RESULTS = Path(__file__).resolve().parent.parent / "results"
RANKS = (1, 8, 64)
NAMES = ("run", "kept", "split")
"""Fields that name a finding of the model."""


def numbers(finding: dict[str, Any]) -> dict[str, float]:
    """The fields that are single numbers; of `errors` some ranks, of likelihoods the mean."""
    found: dict[str, float] = {
        key: value
        for key, value in finding.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    for r in RANKS:
        if "errors" in finding:
            found[f"r={r}"] = finding["errors"][r - 1]
    if "cosines" in finding:
        found["least cosine"] = min(finding["cosines"])
    for key in ("before", "after"):
        if isinstance(finding.get(key), list):
            found[key] = fmean(finding[key])
    return found


def mean(findings: list[dict[str, Any]]) -> dict[str, float]:
    """The mean of each number over the findings (of a least cosine the least), with their number
    as n."""
    found = [numbers(finding) for finding in findings]
    means: dict[str, float] = {key: fmean(one[key] for one in found) for key in found[0]}
    if "least cosine" in means:
        means["least cosine"] = min(one["least cosine"] for one in found)
    means["n"] = len(found)
    return means


def summary(found: Any) -> dict[str, dict[str, float]]:
    """Run, weight or other name -> its numbers."""
    if isinstance(found, dict):
        return {run: mean(of) for run, of in found.items()}
    if found and "site" in found[0]:
        weights = labels(one["site"] for one in found)
        groups = defaultdict(list)
        for one in found:
            groups[weights[one["site"]][1]].append(one)
        return {weight: mean(of) for weight, of in groups.items()}
    names = [next(one[key] for key in NAMES if key in one) for one in found]
    return {name: numbers(one) for name, one in zip(names, found, strict=True)}


def kept(file: Path, called: dict[str, str]) -> dict[str, Any]:
    """The content of results/. called: start of a run's or weight's name -> what pages call it."""
    text = file.read_text("utf-8")
    if file.suffix == ".jsonl":
        content: dict[str, Any] = {"what": "rotation"}
        found: Any = rotations(text)
    else:
        content = json.loads(text)
        found = content.pop("found")
        for run in content["runs"]:
            del run["path"]
        for key in ("text", "tokens"):
            content.pop(key, None)
    content["summary"] = {_called(key, called): of for key, of in summary(found).items()}
    return content


def rotations(text: str) -> list[dict[str, Any]]:
    """1 - cos(W, W0) of each weight at the last evaluation."""
    events = [json.loads(line) for line in text.splitlines()]
    last = [event for event in events if event["event"] == "rotation"][-1]
    return [{"site": site, "rotation": value} for site, value in last["rotation"].items()]


def _called(label: str, called: dict[str, str]) -> str:
    return next((name for run, name in called.items() if label.startswith(run)), label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="WHAT.json of an analysis")
    parser.add_argument("name", help="file below results/")
    parser.add_argument("--called", action="append", default=[], metavar="RUN=NAME")
    given = parser.parse_args()
    called = dict(text.split("=", 1) for text in given.called)
    content = kept(given.file, called)
    path = RESULTS / given.name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
