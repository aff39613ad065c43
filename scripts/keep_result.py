"""Keeps the result of a finished run in results/, without the paths of the machine it ran on.

    python scripts/keep_result.py runs/smollm2-e2e-05a2456cbcf11210 smollm2/e2e_lora.json \
        --model HuggingFaceTB/SmolLM2-135M-Instruct
"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from lorakit.runs.result import Result, write_whole

RESULTS = Path(__file__).resolve().parent.parent / "results"
PLACES = ("model.name=", "data.path=")


def kept(result: Result, model: str) -> Result:
    """The result of a run whose base and data were folders, as others can name them."""
    values = json.loads(json.dumps(result.recipe_values))
    values["model"]["name"] = model
    values["data"].pop("path", None)
    environment = dict(result.environment)
    environment["command"] = without_places(environment["command"])
    changes = {"model": model, "recipe_values": values, "environment": environment}
    return result.model_copy(update=changes)


def without_places(command: str) -> str:
    """The command without the folders of the base, the data and the runs; of a file elsewhere, such
    as the recipe, the name is left."""
    words = shlex.split(command)
    found = []
    for before, word in zip(["", *words], words, strict=False):
        if "--runs" not in (before, word) and not word.startswith((*PLACES, "--runs=")):
            found.append(Path(word).name if Path(word).is_absolute() else word)
    return shlex.join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("name", help="file below results/")
    parser.add_argument("--model", required=True, help="name of the base on the hub")
    given = parser.parse_args()
    result = kept(Result.read(given.run / "result.json"), given.model)
    path = RESULTS / given.name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, result.model_dump_json(indent=2) + "\n")


if __name__ == "__main__":
    main()
