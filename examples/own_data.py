"""Your own data: rows in memory become files and a recipe, a trained adapter, and a prediction.

`ROWS` is a list of dictionaries here; rows of a database or of a data frame work the same way. The
tiny base model ships with lorakit, so that the example needs no network. For real texts, set
`model.name` to a model of the hub, such as `roberta-base`.

    python examples/own_data.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import yaml
from transformers.utils import logging

import lorakit

SUBJECTS = ("film", "soup", "room", "book")
WORDS = {"negative": ("bad", "dull", "terrible"), "positive": ("good", "fine", "great")}
ROWS = [
    {"review": f"We found the {subject} {word}.", "verdict": label}
    for subject in SUBJECTS
    for label, words in WORDS.items()
    for word in words
]
VALIDATION_ROWS = 6


def write_rows(path: Path, rows: list[dict]) -> str:
    """Write one JSON object per line. Returns the path as a recipe takes it."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def write_recipe(folder: Path, rows: list[dict]) -> Path:
    """Write the two files of rows and a recipe that trains on them. Returns the recipe's path."""
    recipe = {
        "task": {
            "name": "classification",
            "train": write_rows(folder / "train.jsonl", rows[:-VALIDATION_ROWS]),
            "validation": write_rows(folder / "validation.jsonl", rows[-VALIDATION_ROWS:]),
            "text": "review",  # the columns: any names will do
            "label": "verdict",
        },
        "model": {"name": "lorakit:tiny_encoder"},
        "method": {"name": "lora", "targets": ["query", "value"], "r": 8, "alpha": 16},
        "train": {"max_steps": 30, "global_batch_size": 6, "learning_rate": 5e-3},
    }
    path = folder / "reviews.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def predict(adapter: Path, text: str) -> str:
    """The label that the trained model gives a text."""
    loaded = lorakit.load(adapter)
    inputs = loaded.tokenizer(text, return_tensors="pt")
    logits = loaded.model(**inputs).logits
    return loaded.labels[int(logits.argmax())]


def main() -> None:
    logging.set_verbosity_error()  # transformers reports that the head is newly initialised
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = lorakit.train(write_recipe(folder, ROWS), runs=folder / "runs")
        print(f"scores: {run.scores}")
        print(f"all checks passed: {run.passed}")
        text = "We found the book great."
        print(f"{text!r} is {predict(run.adapter, text)}")


if __name__ == "__main__":
    main()
