"""A split whose answers are hidden: predicted, and written as the benchmark's server wants it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lorakit.tasks._glue import VARIANTS
from tests.tasks.conftest import FILES
from tests.tiers import unit_or_slow
from tests.verbs.test_verbs import lines

ENCODER = "model: {name: 'lorakit:tiny_encoder'}\n"
REST = (
    "method: {name: lora, r: 2}\ndata: {max_length: 64}\n"
    "train: {max_steps: 2, global_batch_size: 4, warmup: 0.0}\n"
)


@pytest.fixture
def run_of(tmp_path, lorakit_cli):
    """`run_of(text)`: the run folder of a recipe."""

    def run_of(text: str) -> Path:
        (tmp_path / "mine.yaml").write_text(text)
        done = lorakit_cli("train", tmp_path / "mine.yaml", "--runs", tmp_path / "runs", "--json")
        assert done.code == 0, done.err
        return Path(done.json["run"])

    return run_of


@pytest.mark.parametrize(
    ("task", "header"),
    unit_or_slow(
        [("mrpc", ("0", "1")), ("rte", ("entailment", "not_entailment")), ("stsb", None)],
        [("rte", ("entailment", "not_entailment")), ("stsb", None)],
    ),
)
def test_a_glue_test_split_is_written_for_the_server(
    run_of, lorakit_cli, tmp_path, monkeypatch, task, header
):
    variant = VARIANTS[task]
    monkeypatch.setitem(VARIANTS, task, replace(variant, rows=dict.fromkeys(variant.rows, 3)))
    for name, text in FILES.items():
        if name.startswith(variant.folder):
            (tmp_path / "glue" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "glue" / name).write_bytes(text.encode())
    run = run_of(
        f"task: {{name: glue/{task}}}\n{ENCODER}{REST}".replace(
            "64}", f"64, path: {tmp_path}/glue}}"
        )
    )
    said, where = run / "seed0" / "predictions" / "validation.jsonl", f"data.path={tmp_path}/glue"
    scored = lorakit_cli(
        "score", f"glue/{task}", where, "--predictions", said, "--split", "validation", "--json"
    )
    assert scored.code == 0, scored.err
    assert scored.json["scores"] == lorakit_cli("eval", run, "--json").json["scores"]["validation"]
    done = lorakit_cli("eval", run, "--split", "test", "--json")
    assert done.code == 0, done.err
    assert done.json["scores"] == {}
    predictions, submission = map(Path, done.json["files"])
    said = [line["prediction"] for line in lines(predictions)]
    rows = [row.split("\t") for row in submission.read_text().splitlines()]
    assert submission.name == f"{variant.folder}.tsv"
    assert rows[0] == ["index", "prediction"]
    assert [row[0] for row in rows[1:]] == ["0", "1", "2"]
    if header is None:
        assert [float(row[1]) for row in rows[1:]] == pytest.approx(
            [min(5, max(0, p)) for p in said], abs=1e-3
        )
    else:
        assert [row[1] for row in rows[1:]] == [header[variant.labels.index(p)] for p in said]
    part = lorakit_cli("eval", run, "--split", "test", "data.limit.test=2", "--json")
    assert part.code == 0
    assert (
        "no file for the benchmark's server: test has 3 rows, and there are 2 predictions"
        in part.err
    )
    assert [Path(file).name for file in part.json["files"]] == ["test.jsonl"]


def test_a_text_task_predicts_prompts_without_answers(run_of, lorakit_cli, tmp_path):
    prompts = [{"prompt": f"name[Aromi {i}], area[riverside]"} for i in range(3)]
    answered = [
        {**row, "completion": f"Aromi {i} is by the riverside."} for i, row in enumerate(prompts)
    ]
    for name, rows in (("train", answered), ("validation", answered), ("test", prompts)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = ", ".join(
        f"{name}: {tmp_path}/{name}.jsonl" for name in ("train", "validation", "test")
    )
    run = run_of(
        f"task: {{name: text, {files}}}\nmodel: {{name: 'lorakit:tiny_gpt2'}}\n{REST}decode: "
        f"{{max_new_tokens: 4}}\n"
    )
    done = lorakit_cli("eval", run, "--split", "test", "--json")
    assert done.code == 0, done.err
    assert done.json["adapter_effect"] > 0
    assert [line["reference"] for line in lines(Path(done.json["files"][0]))] == [None] * 3
