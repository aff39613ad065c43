"""BERTScore beside its own package, with a model that is at hand in place of roberta-large."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from lorakit.metrics import bertscore as module
from lorakit.metrics import metrics

bertscore = metrics.get("bertscore")


def test_it_is_left_out_with_a_word_where_the_package_is_missing(monkeypatch, caplog):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert bertscore(["a"], ["a"]) == {}
    assert "lorakit[bertscore]" in caplog.text


def test_it_is_left_out_with_a_word_where_the_model_is_missing(monkeypatch, caplog):
    def score(*_):
        raise OSError("We couldn't connect to the hub\nand more")

    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "bert_score", SimpleNamespace(score=score))
    assert bertscore(["a"], ["a"]) == {}
    assert "We couldn't connect" in caplog.text


def test_the_mean_is_over_all_examples_and_an_empty_text_counts_nothing(monkeypatch):
    import torch

    asked = []

    def score(texts, references, model, layer):
        asked.append((texts, references, model, layer))
        return None, None, torch.tensor([0.5, 1.0])

    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "bert_score", SimpleNamespace(score=score))
    assert bertscore(["a", " ", "b"], ["x", ["y"], ["b", "c"]]) == {"bertscore_f1": 0.5}
    assert asked == [(["a", "b"], [["x"], ["b", "c"]], "roberta-large", 17)]
    assert bertscore([""], ["x"]) == {"bertscore_f1": 0.0}


@pytest.mark.peers
def test_the_package_takes_what_we_give_it(tmp_path, monkeypatch):
    """With a tiny BERT: the call fits the package, and equal texts score 1."""
    pytest.importorskip("bert_score")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    BertTokenizerFast(tokenizer_object=core, model_max_length=32).save_pretrained(tmp_path)
    BertModel(
        BertConfig(
            vocab_size=8,
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=16,
        )
    ).save_pretrained(tmp_path)
    monkeypatch.setattr(module, "MODEL", str(tmp_path))
    monkeypatch.setattr(module, "LAYER", 2)
    found = bertscore(["a b", "", "c"], ["a b", ["a"], ["b", "c"]])
    assert found["bertscore_f1"] == pytest.approx(2 / 3, abs=1e-5)
