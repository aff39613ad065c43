"""The report of `lorakit prepare`: lengths, what is cut or dropped, what repeats, labels."""

from __future__ import annotations

import json
from pathlib import Path


def test_the_report_of_a_classification(lorakit_cli, tmp_path, write):
    train = write(
        "a.csv",
        "text,label\n"
        + "good film,positive\nbad,negative\nbad,negative\n,negative\ngood film now,positive\n",
    )
    dev = write("b.csv", "text,label\nbad,negative\nother,positive\n")
    files = [f"task.train={train}", f"task.validation={dev}", "task.text=text", "task.label=label"]
    done = lorakit_cli("prepare", "quickstart", *files, "data.empty=drop", "--json")
    found = json.loads(done.out)
    about = found["splits"]["train"]
    assert (about["examples"], about["repeated"], about["in_training"]) == (4, 1, 0)
    assert about["dropped"] == {"nothing to learn": 1}
    assert about["labels"] == {"negative": 2, "positive": 2}
    assert sum(bin["examples"] for bin in about["histogram"]) == 4
    assert found["rows"] == {"train": 4, "validation": 2}
    assert found["splits"]["validation"]["in_training"] == 1
    assert "labels: " in done.err
    cut = lorakit_cli("prepare", "quickstart", *files, "data.max_length=4", "--json")
    assert json.loads(cut.out)["splits"]["train"]["cut"] > 0


def test_a_test_file_is_in_the_report(lorakit_cli, tmp_path, write):
    train = write("a.csv", "text,label\ngood film,positive\nbad,negative\n")
    test = write("t.csv", "text,label\nbad,negative\nbetter,positive\n")
    files = [f"task.train={train}", f"task.validation={train}", f"task.test={test}"]
    own = ["quickstart", *files, "task.text=text", "task.label=label"]
    found = json.loads(lorakit_cli("prepare", *own, "--json").out)
    assert found["rows"] == {"train": 2, "validation": 2, "test": 2}
    assert found["splits"]["test"]["in_training"] == 1
    Path(test).unlink()
    assert lorakit_cli("prepare", *own).code == 2
