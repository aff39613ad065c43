"""Texts in other scripts: a tokenizer of choice, and a warning where a metric finds no tokens."""

from __future__ import annotations

import pytest

from lorakit.metrics import _tokens, metrics
from lorakit.tasks.text import Text

CHINESE = ["今天天气很好，我们去公园散步吧。", "我喜欢喝茶，不喜欢喝咖啡。"]
RUSSIAN = ["Сегодня хорошая погода , идём гулять", "Я люблю чай и не люблю кофе"]
ENGLISH = ["The cat sat on the mat .", "A dog barks at the moon ."]


@pytest.fixture(autouse=True)
def _said_again():
    _tokens.say_once.cache_clear()


def task(**fields):
    return Text(
        train="t.csv", validation="v.csv", metrics=("exact_match", "rouge", "bleu", "ter"), **fields
    )


@pytest.mark.parametrize(
    ("texts", "tokenize"), [(CHINESE, "zh"), (CHINESE, "char"), (RUSSIAN, "intl"), (ENGLISH, None)]
)
def test_equal_texts_score_as_equal(caplog, texts, tokenize):
    scores = task(tokenize=tokenize).score(texts, texts)
    assert {key: scores[key] for key in ("rouge1", "rouge2", "rougeL", "exact_match", "ter")} == {
        "rouge1": 100.0,
        "rouge2": 100.0,
        "rougeL": 100.0,
        "exact_match": 100.0,
        "ter": 0.0,
    }
    assert scores["bleu"] == pytest.approx(100.0)
    assert not caplog.records


@pytest.mark.parametrize(
    ("texts", "poor"), [(CHINESE, {"rouge", "bleu", "ter"}), (RUSSIAN, {"rouge"})]
)
def test_a_score_of_nothing_is_said_once(caplog, texts, poor):
    for _ in range(2):
        task().score(texts, texts)
    assert sorted(r.getMessage().split(":")[0] for r in caplog.records) == sorted(poor)
    assert all("task.tokenize" in r.getMessage() for r in caplog.records)


def test_one_word_answers_have_no_bleu(caplog):
    assert task().score(["yes"], ["yes"])["bleu"] == 0.0
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["bleu"]


def test_a_close_chinese_text_is_as_sacrebleu_scores_it():
    import sacrebleu

    said = ["今天天气不好，我们去公园散步吧。", CHINESE[1]]
    expected = sacrebleu.corpus_bleu(said, [CHINESE], tokenize="zh").score
    assert metrics.get("bleu")(said, CHINESE, tokenize="zh")["bleu"] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["bleu", "rouge", "ter"])
def test_weighted_is_the_same_with_a_tokenizer(name):
    import numpy as np

    said = ["今天天气不好，我们去公园散步吧。", CHINESE[1]]
    weighted = metrics.get(name).weigh(said, CHINESE, tokenize="zh")(np.ones((1, 2)))
    assert {k: v[0] for k, v in weighted.items()} == pytest.approx(
        metrics.get(name)(said, CHINESE, tokenize="zh")
    )
