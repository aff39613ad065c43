"""Whole runs of causal models on rows of one's own: each family's roles, chats, packing, new
tokens, 4 bits."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lorakit.bases.tokenizer import load_tokenizer
from lorakit.models import Model
from lorakit.runs.lines import read_lines
from lorakit.runs.result import Result
from tests.tiers import unit_or_slow

FAMILIES = [
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi3",
    "gpt_neox",
]
CHATML = """{% for m in messages %}{{ '<im> ' + m.role + ' ' + m.content + ' <end> ' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<im> assistant ' }}{% endif %}"""


@pytest.fixture
def base(tiny, tokenizer, tmp_path):
    def make(family: str, **changes) -> Path:
        folder, words = tmp_path / family, tokenizer()
        if (
            family == "qwen2"
        ):  # transformers takes any tokenizer beside such a model for one of bytes
            words = load_tokenizer(Model(name="lorakit:tiny_gpt2"))
            changes |= {"vocab_size": len(words)}
        tiny(family, "CausalLM", **changes).model.save_pretrained(folder)
        words.save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def recipe(tmp_path):
    """A recipe file over rows that say `w1 w2` -> `w2 w1`, and so on."""

    def make(
        place: Path, task: dict | None = None, rows: list[dict] | None = None, **parts
    ) -> Path:
        pairs = [
            (f"w{i % 9} w{(i * 5) % 7 + 20}", f"w{(i * 5) % 7 + 20} w{i % 9}") for i in range(48)
        ]
        rows = rows or [{"prompt": a, "completion": b} for a, b in pairs]
        data = tmp_path / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        whole = {
            "task": {"name": "text", "train": str(data), "validation": str(data), **(task or {})},
            "model": {"name": str(place)},
            "method": {"name": "lora", "r": 4},
            "data": {"max_length": 32},
            "train": {"max_steps": 4, "global_batch_size": 8, "learning_rate": 0.01},
            "evaluate": {"every_steps": 4},
            "decode": {"max_new_tokens": 4},
        }
        for name, part in parts.items():
            whole[name] = {**whole[name], **part}
        file = tmp_path / "own.yaml"
        file.write_text(json.dumps(whole), encoding="utf-8")
        return file

    return make


@pytest.mark.parametrize("family", unit_or_slow(FAMILIES, ["llama", "gpt_neox"]))
def test_a_family_is_trained_saved_read_again_and_merged(
    base, recipe, lorakit_cli, tmp_path, family
):
    done = lorakit_cli("train", recipe(base(family)), "--runs", tmp_path / "runs", "--json")
    assert done.code == 0, done.err
    result = Result.read(Path(done.json["run"]) / "result.json")
    (seed,) = result.seeds
    assert result.counts.sites == 4, "query and value of two layers"
    assert all(norm > 1e-3 for norm in seed.delta_norms.values())
    assert {check.name: check.passed for check in seed.checks} == {
        "alive": True,
        "reload": True,
        "merge": True,
    }
    merged = lorakit_cli("merge", done.json["run"], "--to", tmp_path / "merged", "--json")
    assert merged.code == 0, merged.err
    assert merged.json["max_logit_difference"] < 1e-4
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_the_loss_of_an_evaluation_selects_and_stops(base, recipe, lorakit_cli, tmp_path):
    """With a rate that ruins the model, the loss soon rises."""
    file = recipe(
        base("llama"),
        train={"max_steps": 18, "learning_rate": 5.0, "warmup": 0, "schedule": "constant"},
        evaluate={"every_steps": 1, "metric": "loss", "patience": 1},
    )
    done = lorakit_cli("train", file, "--runs", tmp_path / "runs", "--json")
    assert done.code == 0, done.err
    result = Result.read(Path(done.json["run"]) / "result.json")
    (seed,) = result.seeds
    assert seed.not_trained == 18 - seed.steps > 0
    assert {note.kind for note in result.notes} >= {"early stop", "selection"}
    lines = read_lines(Path(done.json["run"]) / "seed0" / "metrics.jsonl")
    losses = [line["scores"]["loss"] for line in lines if line["event"] == "eval"]
    assert seed.scores["validation"]["loss"] == losses[-2] == min(losses) < losses[-1]
    # texts of all examples are generated once, for the kept state
    evaluated = [set(line["scores"]) for line in lines if line["event"] == "eval"]
    assert all(keys == {"loss", "perplexity"} for keys in evaluated)
    assert set(seed.scores["validation"]) > {"loss", "perplexity", "bleu"}
    samples = [line["samples"] for line in lines if line["event"] == "samples"]
    assert [len(each) for each in samples] == [3] * len(losses)
    assert [one["id"] for one in samples[0]] == [one["id"] for one in samples[1]]


@pytest.mark.parametrize("task", unit_or_slow(["chat", "text"], ["chat"]))
def test_a_task_that_writes_is_trained_without_validation(base, recipe, lorakit_cli, task):
    file = recipe(base("llama"), {"name": task, "validation": "none"})
    done = lorakit_cli("train", file, "--runs", file.parent / "runs", "--json")
    assert done.code == 0, done.err
    (seed,) = Result.read(Path(done.json["run"]) / "result.json").seeds
    assert (seed.scores, seed.steps) == ({}, 4)


@pytest.mark.slow
def test_plain_texts_are_scored_by_their_loss_alone(base, recipe, lorakit_cli, tmp_path):
    place = base("llama")
    texts = [" ".join(f"w{(i * k) % 40}" for k in range(2 + i % 5)) for i in range(48)]
    task = {"name": "chat", "validation": 0.25, "metrics": "loss"}
    file = recipe(place, task, [{"text": text} for text in texts])
    assert lorakit_cli("check", file).code == 0
    done = lorakit_cli("train", file, "--runs", tmp_path / "runs", "--json")
    assert done.code == 0, done.err
    run = Path(done.json["run"])
    (seed,) = Result.read(run / "result.json").seeds
    assert set(seed.scores["validation"]) == {"loss", "perplexity"}
    lines = read_lines(run / "seed0" / "predictions" / "validation.jsonl")
    held = [line["references"][0] for line in lines]
    assert set(held) <= set(texts)
    assert {line["prediction"] for line in lines} == {None}
    assert seed.base_scores["validation"]["loss"] == pytest.approx(_loss(place, held), rel=1e-5)
    assert seed.scores["validation"]["loss"] < seed.base_scores["validation"]["loss"]
    again = lorakit_cli("eval", run, "--json")
    assert again.json["scores"]["validation"] == pytest.approx(seed.scores["validation"])
    merged = lorakit_cli("merge", run, "--to", tmp_path / "merged", "--json")
    assert merged.code == 0, merged.err
    assert merged.json["metrics_after"] == pytest.approx(seed.scores["validation"], rel=1e-4)
    # a finished run is shown again, and its scores are compared with its predictions
    assert lorakit_cli("train", file, "--runs", tmp_path / "runs").code == 0


def _loss(place: Path, texts: list[str]) -> float:
    """Plain transformers': each token once."""
    model = AutoModelForCausalLM.from_pretrained(place)
    tokenizer = load_tokenizer(Model(name=str(place)))
    total = tokens = 0
    for text in texts:
        ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        batch = torch.tensor([ids])
        with torch.no_grad():
            total += float(model(batch, labels=batch).loss) * (len(ids) - 1)
        tokens += len(ids) - 1
    return total / tokens


def test_the_loss_does_not_depend_on_the_batch(base, recipe, lorakit_cli, tmp_path):
    file = recipe(base("llama"), train={"ema": 0.5})
    found = []
    for size in (1, 64):
        runs = tmp_path / f"runs{size}"
        done = lorakit_cli("train", file, f"evaluate.batch_size={size}", "--runs", runs, "--json")
        assert done.code == 0, done.err
        found.append(done.json["scores"]["validation/loss"])
        result = Result.read(Path(done.json["run"]) / "result.json")
        assert result.seeds[0].average == "ema"
        assert "average" in {note.kind for note in result.notes}
        again = lorakit_cli("eval", done.json["run"], "--json")
        assert again.json["scores"]["validation"]["loss"] == pytest.approx(found[-1], rel=1e-6)
    assert found[0] == pytest.approx(found[1], rel=1e-6)


@pytest.mark.parametrize(
    ("metric", "said"), [("blue", "'blue'"), ("accuracy", "'accuracy'")], ids=str
)
def test_a_metric_that_is_no_score_is_refused(base, recipe, lorakit_cli, tmp_path, metric, said):
    file = recipe(base("llama"), evaluate={"metric": metric})
    done = lorakit_cli("train", file, "--runs", tmp_path / "runs")
    assert done.code == 2
    assert said in done.err
    assert not list((tmp_path / "runs").glob("*/seed0/adapter"))


def test_chats(base, recipe, lorakit_cli, tmp_path):
    template = tmp_path / "chat.jinja"
    template.write_text(CHATML, encoding="utf-8")
    rows = [
        {
            "chat": [
                {"role": "user", "content": f"w{i % 5}"},
                {"role": "assistant", "content": f"w{i % 5 + 10}"},
                {"role": "user", "content": f"w{i % 5 + 30}"},
                {"role": "assistant", "content": f"w{i % 5 + 20} w3"},
            ]
        }
        for i in range(40)
    ]
    new = {"new_tokens": ["<im>", "<end>"], "chat_template": str(template)}
    file = recipe(
        base("llama"),
        {"messages": "chat"},
        rows,
        model=new,
        train={
            "max_steps": 150,
            "global_batch_size": 8,
            "learning_rate": 0.02,
            "group_by_length": False,
        },
        evaluate={"every_steps": 150},
        method={"name": "lora", "r": 8, "targets": "all-linear"},
    )
    shown = lorakit_cli("check", file, "--json")
    assert shown.code == 0, shown.err
    done = lorakit_cli("train", file, "--runs", tmp_path / "runs", "--json")
    assert done.code == 0, done.err
    score = done.json["scores"]["validation/exact_match"]
    assert score >= 60, (
        "most last turns are learnt, and their ends: a text that goes on is no match"
    )
    assert done.json["base_scores"]["validation/exact_match"] == 0
    again = lorakit_cli("eval", Path(done.json["run"]) / "seed0" / "adapter", "--json")
    assert again.code == 0, again.err
    assert again.json["scores"]["validation"]["exact_match"] == score
    said = lorakit_cli("generate", done.json["run"], "--prompt", "w2", "--json")
    assert said.code == 0, said.err
    merged = lorakit_cli("merge", done.json["run"], "--to", tmp_path / "merged", "--json")
    assert merged.code == 0, merged.err


def test_packing_changes_no_loss(base, recipe, lorakit_cli, tmp_path):
    model = base("llama")
    losses = []
    for packing in (False, True):
        file = recipe(model, data={"packing": packing, "max_length": 24})
        done = lorakit_cli("train", file, "--runs", tmp_path / str(packing), "--json")
        assert done.code == 0, done.err
        events = read_lines(Path(done.json["run"]) / "seed0" / "metrics.jsonl")
        losses.append([event["loss"] for event in events if event["event"] == "step"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0][-1] != losses[0][0]


def test_packing_where_examples_would_mix_is_refused(base, recipe, lorakit_cli, tmp_path):
    done = lorakit_cli("train", recipe(base("opt"), data={"packing": True}), "--runs", tmp_path)
    assert done.code == 2
    assert "data.packing: in OPTForCausalLM the examples of a row see each other" in done.err


@pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="the extra `quantized` is not installed"
)
@pytest.mark.parametrize("kind", unit_or_slow(["nf4", "int8"], ["nf4"]))
def test_a_quantized_base(base, recipe, lorakit_cli, tmp_path, kind):
    model = base("llama", hidden_size=64, intermediate_size=128, head_dim=16)
    file = recipe(model, model={"quantize": kind})
    done = lorakit_cli("train", file, "--runs", tmp_path / "runs", "--json")
    assert done.code == 0, done.err
    run = done.json["run"]
    merged = lorakit_cli("merge", run, "--to", tmp_path / "merged", "--json")
    assert merged.code == 0, merged.err
    assert merged.json["max_logit_difference"] < 1e-4
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert "quantization_config" not in config
    assert lorakit_cli("eval", run).code == 0
