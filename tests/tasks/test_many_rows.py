"""Many rows: a second start from the cache, their answers and scores take little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROWS = 200_000
CODE = """
import sys
import numpy, transformers, torch
from lorakit.evaluation.answers import Answer, StoredAnswers, read_splits, score_answers
from lorakit.runs.lines import write_lines
from lorakit.tasks import Data
from lorakit.tasks.text import Text
from lorakit.training.memory import peak_bytes
from pathlib import Path
import sacrebleu

def ask(file):
    task = Text(train=file, validation=file)
    examples = read_splits(task, Data(), ["train"])["train"]
    answers = StoredAnswers(len(examples))
    for place, e in enumerate(examples):
        text = str(e.target)
        answers[place] = Answer(e.id, text, [text], text, e.text)
    write_lines(Path(file).with_suffix(".out"), (answer.line() for answer in answers))
    return len(examples), score_answers(task, answers)

ask(sys.argv[1])
before = peak_bytes()
count, scores = ask(sys.argv[2])
assert scores["exact_match"] == 100, scores
print((peak_bytes() - before) / count)
"""


@pytest.mark.slow
def test_answers_of_many_rows_take_few_bytes_each(tmp_path):
    if sys.platform != "linux":
        pytest.skip("another system counts other pages")
    files = []
    for name, count in (("few", 300), ("many", ROWS)):
        file = tmp_path / f"{name}.jsonl"
        with file.open("w") as lines:
            for n in range(count):
                row = {"prompt": f"what is the number {n}", "completion": f"the number is {n}"}
                lines.write(json.dumps(row) + "\n")
        files.append(str(file))
    done = subprocess.run(
        [sys.executable, "-c", CODE, *files],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"LORAKIT_CACHE": str(tmp_path / "cache")},
    )
    assert float(done.stdout) < 400, "bytes of memory for each row"
    assert not list(Path(tmp_path).glob(".*")), "nothing half-written is left"
