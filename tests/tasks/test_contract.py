"""What every task in the folder keeps to, on three rows of its own layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from lorakit.errors import DataError
from lorakit.tasks import LABELLED, Data, Head, Task, read_examples, tasks
from lorakit.tasks._glue import VARIANTS

CSV = (
    "prompt,completion,text,label,value,tags,context\n"
    "x,y,a,pos,1,B-X,x y\nz,w,b,neg,2.5,O,z w\nu,v,c,pos,4,B-X,u v\n"
)


def _own(name: str, **fields: str) -> Callable[[Path], tuple[dict, Data]]:
    def sample(folder: Path) -> tuple[dict, Data]:
        (folder / "a.csv").write_text(CSV)
        files = {split: str(folder / "a.csv") for split in ("train", "validation", "test")}
        return {"name": name, **files, **fields}, Data()

    return sample


def _in(home: str, name: str) -> Callable[[Path], tuple[dict, Data]]:
    return lambda folder: ({"name": name}, Data(path=str(folder / home)))


# one entry per file in lorakit/tasks: the fields of an instance, and its data
SAMPLES = {
    "classification": [_own("classification")],
    "regression": [_own("regression", label="value")],
    "multilabel": [_own("multilabel", label="label")],
    "token_classification": [_own("token_classification", words="text")],
    "question_answering": [_own("question_answering", question="prompt", answer="completion")],
    "text": [_own("text")],
    "chat": [_own("chat", format="prompt_completion")],
    "glue": [_in("glue", f"glue/{variant}") for variant in VARIANTS],
    "e2e": [_in("e2e", "e2e")],
    "webnlg": [_in("webnlg_challenge_2017", "webnlg")],
    "dart": [_in("dart", "dart")],
    "wikisql": [
        lambda _: (
            {"name": "wikisql"},
            Data(path=str(Path(__file__).parents[1] / "assets/wikisql/files")),
        )
    ],
    "samsum": [_in("samsum", "samsum")],
    "mnli_causal": [_in("glue", "mnli_causal")],
}


def test_every_task_of_the_folder_has_a_sample():
    assert len(tasks.names()) >= 4
    assert sorted(SAMPLES) == tasks.names()


@pytest.fixture(
    params=[(name, i) for name, samples in SAMPLES.items() for i in range(len(samples))], ids=str
)
def case(
    request,
    tmp_path,
    glue_folder,
    e2e_folder,
    webnlg_folder,
    dart_folder,
    samsum_folder,
    stub_suites,
) -> tuple[Task, Data]:
    name, i = request.param
    fields, data = SAMPLES[name][i](tmp_path)
    return tasks.get(name)(**fields), data


def _output(task: Task, answer):
    """What a model that is right would give."""
    if task.head is Head.MULTILABEL:
        return [1.0 if label in answer else -1.0 for label in task.labels]
    if task.head is Head.TOKENS:
        return [[float(label == one) for label in task.labels] for one in answer]
    if task.head is Head.CLASSIFICATION:
        return [float(label == answer) for label in task.labels]
    if task.choices:
        likeliest = [[-float(choice != other) for other in task.choices] for choice in task.choices]
        return next(output for output in likeliest if task.to_prediction(output) == answer)
    return [answer] if task.head is Head.REGRESSION else f" {answer[0]}\n"


def test_examples(case):
    task, data = case
    for split in (task.train_split, *task.eval_splits, *task.final_splits, *task.test_splits):
        examples = task.read(split, data)
        assert len(examples) == 3
        assert len({example.id for example in examples}) == 3
        assert len(task.read(split, data.model_copy(update={"limit": {split: 1}}))) == 1
        if split not in task.test_splits:
            kinds = {Head.CLASSIFICATION: int, Head.REGRESSION: float, Head.CAUSAL: str}
            kind = kinds.get(task.head, tuple)
            assert all(type(example.target) is kind for example in examples)
            assert not task.choices or {example.target for example in examples} <= set(task.choices)
    for read in (task.read, partial(read_examples, task)):
        with pytest.raises(DataError, match="no split 'dev'"):
            read("dev", data)


def test_right_outputs_give_the_best_score(case):
    task, data = case
    for split in (*task.eval_splits, *task.final_splits):
        references = [task.to_reference(example) for example in task.read(split, data)]
        predictions = [task.to_prediction(_output(task, answer)) for answer in references]
        scores = task.score(predictions, references)
        assert scores[task.primary] == pytest.approx(100.0)
        assert json.loads(json.dumps(predictions)) == predictions
        assert all(type(value) is float for value in scores.values())


def test_scores_of_weighted_examples(case):
    """With ones they are the scores, in the same unit."""
    task, data = case
    for split in (*task.eval_splits, *task.final_splits):
        references = [task.to_reference(example) for example in task.read(split, data)]
        right = [task.to_prediction(_output(task, answer)) for answer in references]
        predictions = [right[0], *right[:-1]]  # some are wrong
        found = task.weighted(predictions, references)(np.ones((1, len(right))))
        scores = task.score(predictions, references)
        assert task.primary in found
        assert {key: value[0] for key, value in found.items()} == pytest.approx(
            {k: scores[k] for k in found}, nan_ok=True
        )


def test_scores_of_nothing_or_of_unequal_lengths_are_refused(case):
    task, data = case
    reference = task.to_reference(task.read(task.eval_splits[0], data)[0])
    prediction = task.to_prediction(_output(task, reference))
    with pytest.raises(DataError, match="nothing to score"):
        task.score([], [])
    with pytest.raises(DataError, match="2 predictions for 1 references"):
        task.score([prediction, prediction], [reference])


def test_a_task_is_frozen_closed_and_reloads_equal(case):
    task, _ = case
    plain = task.model_dump(mode="json", exclude_none=True)
    assert type(task)(**json.loads(json.dumps(plain))) == task
    with pytest.raises(ValidationError, match="frozen"):
        task.name = "other"
    with pytest.raises(ValidationError, match="extra"):
        type(task)(**plain, another=1)


def test_labels_go_with_the_head(case):
    task, _ = case
    assert (len(task.labels) >= 2) == (task.head in LABELLED)
    assert len(set(task.labels)) == len(task.labels)
    if task.choices:
        assert task.head is Head.CAUSAL
        assert len(set(task.choices)) == len(task.choices) >= 2
    assert set(task.expected_rows()) <= {
        task.train_split,
        *task.eval_splits,
        *task.final_splits,
        *task.test_splits,
    }
