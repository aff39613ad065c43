"""What a head reads, which labels its outputs are, and what it starts as, through the commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import lorakit
from tests.tiers import unit_or_slow

ASSETS = Path(lorakit.__file__).parent / "assets"
FILES = [f"task.{split}=lorakit:quickstart/{split}.jsonl" for split in ("train", "validation")]
LIMIT = "data.limit={train: 32, validation: 32}"
SMALL = [LIMIT, "train.max_steps=2", "train.global_batch_size=16"]
Make = Callable[..., Path]


def _encoder(folder: Path, names: Sequence[str] | None = None, **changes: Any) -> Path:
    """The shipped encoder with a head of its own; names: of its outputs."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    if names is not None:
        changes |= {"num_labels": len(names), "id2label": dict(enumerate(names))}
        changes |= {"label2id": {name: i for i, name in enumerate(names)}}
    place = str(ASSETS / "tiny_encoder")
    model = AutoModelForSequenceClassification.from_pretrained(place, **changes)
    model.float().save_pretrained(folder)
    AutoTokenizer.from_pretrained(place).save_pretrained(folder)
    return folder


def _peft(folder: Path, outputs: int, **changes: Any) -> Path:
    """A classifier as PEFT saves one, on the shipped encoder; its numbers are random."""
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(1)
    place = str(ASSETS / "tiny_encoder")
    changes |= {"num_labels": outputs}
    base = AutoModelForSequenceClassification.from_pretrained(place, **changes).float()
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"], r=4)
    model = peft.get_peft_model(base, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder


def _config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def _change(folder: Path, file: str, **changes: Any) -> None:
    content = json.loads((folder / file).read_text())
    content |= changes
    (folder / file).write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def _outputs(file: Path) -> torch.Tensor:
    return torch.tensor([json.loads(line)["output"] for line in file.read_text().splitlines()])


@pytest.fixture
def decoder(tmp_path) -> Make:
    """`decoder(config, tokenizer)`: the shipped one with these changes; None: without the field."""

    def decoder(config: dict[str, Any], tokenizer: dict[str, Any]) -> Path:
        folder = Path(shutil.copytree(ASSETS / "tiny_gpt2", tmp_path / "decoder"))
        _change(folder, "config.json", **config)
        _change(folder, "tokenizer_config.json", **tokenizer)
        return folder

    return decoder


@pytest.mark.parametrize(
    ("config", "tokenizer"),
    [
        pytest.param({"pad_token_id": 0}, {"pad_token": None}, marks=pytest.mark.slow),
        pytest.param({"pad_token_id": 7}, {}, marks=pytest.mark.slow),
        ({"pad_token_id": None}, {}),
    ],
    ids=["the start token", "a word", "none"],
)
def test_a_score_is_the_same_at_every_batch_size(decoder, lorakit_cli, tmp_path, config, tokenizer):
    base = decoder(config, tokenizer)
    small = [f"model.name={base}", *SMALL, "--runs", tmp_path / "runs", "--json"]
    done = lorakit_cli("train", "quickstart", *small)
    assert done.code == 0, done.err
    run, found = done.json["run"], []
    for size in (1, 32):
        given = [f"evaluate.batch_size={size}", "--out", tmp_path / str(size)]
        assert lorakit_cli("eval", run, *given).code == 0
        found.append(_outputs(tmp_path / str(size) / "validation.jsonl"))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("examples", unit_or_slow([0, 32], [32]))
def test_a_merged_classifier_names_its_padding_token(decoder, lorakit_cli, tmp_path, examples):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = decoder({"pad_token_id": None}, {"pad_token": None})
    small = [f"model.name={base}", *SMALL, "--runs", tmp_path / "runs", "--json"]
    done = lorakit_cli("train", "quickstart", *small)
    merged = tmp_path / "merged"
    assert lorakit_cli("merge", done.json["run"], "--to", merged, "--examples", examples).code == 0
    tokenizer = AutoTokenizer.from_pretrained(merged)
    assert _config(merged)["pad_token_id"] == tokenizer.pad_token_id == 2
    model = AutoModelForSequenceClassification.from_pretrained(merged).eval()
    with torch.no_grad():
        both = tokenizer(["good soup", "bad"], return_tensors="pt", padding=True)
        together = model(**both).logits
        alone = model(**tokenizer(["bad"], return_tensors="pt")).logits
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-5)


TASK = ["--task", "classification", *FILES, LIMIT]


@pytest.mark.parametrize(
    "names", [["POSITIVE", "NEGATIVE"], [" Positive", "negative "], ["positive", "negative"]]
)
def test_the_same_labels_in_another_spelling(lorakit_cli, tmp_path, names):
    base = _encoder(tmp_path / "base", names)
    scores = []
    for given in (["task.classes=[positive, negative]"], []):
        done = lorakit_cli("eval", base, *TASK, *given, "--json")
        assert done.code == 0, done.err
        scores.append(done.json["scores"])
    assert scores[0] == scores[1]
    done = lorakit_cli("eval", base, *TASK, "task.classes=[negative, positive]")
    assert done.code == 2
    assert "[positive, negative]" in done.err


UNKNOWN = {
    "placeholders": {},
    "a number left out": {"id2label": {"0": "positive", "2": "negative"}},
    "names that contradict each other": {
        "id2label": {"0": "positive", "1": "negative"},
        "label2id": {"positive": 1, "negative": 0},
    },
    "other names": {"id2label": {"0": "cold", "1": "warm"}, "label2id": {"cold": 0, "warm": 1}},
}


@pytest.mark.parametrize("changes", UNKNOWN.values(), ids=UNKNOWN)
def test_an_order_that_is_not_known_is_asked_for(lorakit_cli, tmp_path, changes):
    base = _encoder(tmp_path / "base")
    _change(base, "config.json", **changes)
    done = lorakit_cli("eval", base, *TASK)
    assert done.code == 2
    assert "task.classes" in done.err
    assert lorakit_cli("eval", base, *TASK, "task.classes=[positive, negative]").code == 0


def test_a_classifier_of_peft_that_names_no_labels(lorakit_cli, tmp_path):
    adapter = _peft(tmp_path / "adapter", 2)
    base = ["--model", "lorakit:tiny_encoder"]
    for verb in (["eval", adapter], ["merge", adapter, "--to", tmp_path / "merged"]):
        done = lorakit_cli(*verb, *base, *TASK)
        assert done.code == 2
        assert "task.classes" in done.err
        assert not (tmp_path / "merged").exists()
    scores = []
    for order in ("positive, negative", "negative, positive"):
        done = lorakit_cli("eval", adapter, *base, *TASK, f"task.classes=[{order}]", "--json")
        assert done.code == 0, done.err
        scores.append(done.json["scores"]["validation"]["accuracy"])
    assert sum(scores) == pytest.approx(100)


def test_a_classifier_of_peft_has_the_labels_of_its_base(lorakit_cli, tmp_path):
    names = ["POSITIVE", "NEGATIVE"]
    base, adapter = _encoder(tmp_path / "base", names), _peft(tmp_path / "adapter", 2)
    scores = [
        lorakit_cli("eval", adapter, "--model", base, *TASK, *given, "--json").json["scores"]
        for given in ([], ["task.classes=[positive, negative]"])
    ]
    assert scores[0] == scores[1]
    assert lorakit_cli("merge", adapter, "--model", base, "--to", tmp_path / "merged").code == 0
    assert _config(tmp_path / "merged")["id2label"] == {"0": "POSITIVE", "1": "NEGATIVE"}
    given = ["--to", tmp_path / "task", *TASK, "task.classes=[positive, negative]"]
    assert lorakit_cli("merge", adapter, "--model", base, *given).code == 0
    assert _config(tmp_path / "task")["id2label"] == {"0": "positive", "1": "negative"}
    assert _config(tmp_path / "task")["problem_type"] == "single_label_classification"


@pytest.mark.parametrize("examples", [0, 8])
@pytest.mark.parametrize(
    ("outputs", "said", "wanted"),
    [
        (1, None, "regression"),
        (1, "regression", "regression"),
        (3, "multi_label_classification", "multi_label_classification"),
        (2, "regression", "regression"),
        (2, None, None),
    ],
)
def test_a_merged_model_is_for_what_its_base_was(
    lorakit_cli, tmp_path, outputs, said, wanted, examples
):
    from transformers import AutoModelForSequenceClassification

    base = _encoder(tmp_path / "base", num_labels=outputs, problem_type=said)
    adapter, merged = _peft(tmp_path / "adapter", outputs), tmp_path / "merged"
    done = lorakit_cli("merge", adapter, "--model", base, "--to", merged, "--examples", examples)
    assert done.code == 0, done.err
    model = AutoModelForSequenceClassification.from_pretrained(merged)
    assert (model.config.problem_type, model.config.num_labels) == (wanted, outputs)


@pytest.mark.parametrize(
    ("outputs", "problem", "task"),
    [
        (1, "regression", "classification"),
        (2, "regression", "classification"),
        (3, None, "classification"),
        (2, None, "regression"),
        (1, "multi_label_classification", "regression"),
    ],
)
def test_a_head_that_was_made_for_another_task(lorakit_cli, tmp_path, outputs, problem, task):
    base = _encoder(tmp_path / "base", num_labels=outputs, problem_type=problem)
    more = ["task.classes=[positive, negative]"] if task == "classification" else []
    data = tmp_path / "values.csv"
    data.write_text("text,label\nsome,0.5\nother,1.5\nthird,0.1\n")
    files = FILES if more else [f"task.train={data}", f"task.validation={data}"]
    done = lorakit_cli("eval", base, "--task", task, *files, *more)
    assert done.code == 2
    assert str(outputs) in done.err or str(problem) in done.err


@pytest.mark.parametrize(
    "names", unit_or_slow([["cold", "warm"], ["cold", "warm", "hot"]], [["cold", "warm"]]), ids=len
)
def test_a_head_of_the_base_is_trained(lorakit_cli, tmp_path, names):
    base = _encoder(tmp_path / "base", names)
    checked = lorakit_cli("check", "quickstart", f"model.name={base}", "--json")
    assert all(name in checked.err for name in (*names, "positive"))
    small = [f"model.name={base}", *SMALL, "--runs", tmp_path / "runs", "--json"]
    done = lorakit_cli("train", "quickstart", *small)
    assert done.code == 0, done.err
    counts = checked.json["counts"]
    assert (counts["trainable"], counts["fresh"]) == (12_288, 16_770)
    assert (done.json["trainable_parameters"], done.json["fresh_parameters"]) == (12_288, 16_770)
    starts = {part["name"]: part["starts"] for part in checked.json["head"]["parts"]}
    last = "the checkpoint's" if len(names) == 2 else "newly initialised"
    assert starts == {"classifier.dense": "the checkpoint's", "classifier.out_proj": last}
    run = Path(done.json["run"])
    trained = load_file(run / "seed0" / "adapter" / "adapter_model.safetensors")
    before = load_file(base / "model.safetensors")["classifier.dense.weight"]
    assert not torch.equal(trained["base_model.model.classifier.dense.weight"], before)
    assert lorakit_cli("merge", run, "--to", tmp_path / "merged").code == 0
    merged = load_file(tmp_path / "merged" / "model.safetensors")["classifier.dense.weight"]
    assert torch.equal(merged, trained["base_model.model.classifier.dense.weight"])


def test_a_head_with_the_labels_the_other_way_round(lorakit_cli, tmp_path):
    base = _encoder(tmp_path / "base", ["POSITIVE", "NEGATIVE"])
    done = lorakit_cli("check", "quickstart", f"model.name={base}")
    assert done.code == 0
    assert "task.classes=[positive, negative]" in done.err
