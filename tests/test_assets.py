"""The files of the quickstart: small, ours, and made by the script as it is."""

from __future__ import annotations

import json

import pytest

from tests.modules import ROOT, load_module

ASSETS = ROOT / "lorakit" / "assets"


@pytest.fixture(scope="module")
def script():
    return load_module("scripts/make_assets.py")


def rows(task: str, split: str) -> list[dict]:
    return [
        json.loads(line) for line in (ASSETS / task / f"{split}.jsonl").read_text().splitlines()
    ]


def test_all_of_it_is_under_six_megabytes():
    assert sum(f.stat().st_size for f in ASSETS.rglob("*") if f.is_file()) < 6_000_000


@pytest.mark.parametrize("task", ["quickstart", "quickstart_generate"])
def test_the_script_makes_the_data_that_ships(script, task, tmp_path):
    make = {"quickstart": script.opinion_data, "quickstart_generate": script.restaurant_data}[task]
    script.write_rows(tmp_path, make(script.SEED))
    for split in ("train", "validation"):
        assert (tmp_path / f"{split}.jsonl").read_text() == (
            ASSETS / task / f"{split}.jsonl"
        ).read_text()


def test_no_validation_row_was_trained_on_and_labels_are_balanced():
    train, validation = rows("quickstart", "train"), rows("quickstart", "validation")
    assert not {r["text"] for r in train} & {r["text"] for r in validation}
    assert sum(r["label"] == "positive" for r in validation) * 2 == len(validation)
    prompts = {r["prompt"] for r in rows("quickstart_generate", "train")}
    assert not prompts & {r["prompt"] for r in rows("quickstart_generate", "validation")}


@pytest.mark.parametrize(
    ("name", "head"), [("tiny_encoder", "classification"), ("tiny_gpt2", "causal")]
)
def test_a_base_loads_offline_and_its_tokenizer_round_trips(monkeypatch, name, head):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from lorakit.bases.load import load
    from lorakit.models import Model

    base = load(Model(name=f"lorakit:{name}"), head, ["negative", "positive"])
    text = "The soup was great, but the waiter was awful."
    ids = base.tokenizer(text)["input_ids"]
    assert base.tokenizer.decode(ids, skip_special_tokens=True).strip() == text
    assert {n.split(".")[0] for n in base.newly_initialised} == (
        {"classifier"} if head == "classification" else set()
    )
