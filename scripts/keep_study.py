"""Keeps the result of a study in results/, without the paths of the machine it ran on.

python scripts/keep_study.py runs/regret_minilm rates/minilm.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lorakit.runs.result import write_whole
from lorakit.studies.result import StudyResult

RESULTS = Path(__file__).resolve().parent.parent / "results"
PLACES = ("model.name=", "data.path=")


def kept(study: StudyResult) -> StudyResult:
    """The study with the names of its run folders, and without those of its base and data."""
    cells = []
    for cell in study.cells:
        overrides = tuple(text for text in cell.overrides if not text.startswith(PLACES))
        recipe = cell.recipe if not Path(cell.recipe).is_absolute() else Path(cell.recipe).name
        changes = {
            "run": Path(cell.run).name,
            "log": None,
            "recipe": recipe,
            "overrides": overrides,
        }
        cells.append(cell.model_copy(update=changes))
    return study.model_copy(update={"file": Path(study.file).name, "cells": tuple(cells)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, help="folder of the study")
    parser.add_argument("name", help="file below results/")
    given = parser.parse_args()
    path = RESULTS / given.name
    path.parent.mkdir(parents=True, exist_ok=True)
    study = kept(StudyResult.read(given.study / "study.json"))
    write_whole(path, study.model_dump_json(indent=2) + "\n")


if __name__ == "__main__":
    main()
