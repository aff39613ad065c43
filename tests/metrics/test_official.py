"""Real outputs, and what the official scorers print for them."""

from __future__ import annotations

import json

import pytest

from lorakit.metrics import facts_of, metrics

# measure_scores.py -p of e2e-metrics (commit 1b9c4d8), on the test set of 630 inputs; six decimals
E2E = {
    "tgen": (0.659272, 8.592267, 0.448260, 0.685023, 2.233846),
    "slug": (0.661883, 8.582351, 0.445446, 0.677174, 2.261547),
    "tr1": (0.633565, 8.084126, 0.432166, 0.682824, 2.142495),
    "sheff2": (0.543596, 5.464897, 0.356105, 0.615163, 1.413041),
}
KEYS = facts_of("e2e_metrics").keys
SHARES = {"bleu", "meteor", "rouge_l"}
SIX_DECIMALS, FOUR_DECIMALS = 6e-7, 6e-5


def as_official(scores: dict[str, float]) -> dict[str, float]:
    return {key: value / 100 if key in SHARES else value for key, value in scores.items()}


@pytest.mark.slow
@pytest.mark.parametrize("system", E2E)
def test_e2e_metrics(system, e2e, real_data):
    found = as_official(metrics.get("e2e_metrics")(*e2e(system)))
    assert found == pytest.approx(
        dict(zip(KEYS, E2E[system], strict=True)), abs=SIX_DECIMALS, rel=0
    )


@pytest.mark.slow
def test_the_example_of_e2e_metrics(data, real_data):
    """Its inputs/devel-conc.txt and baseline-output.txt; four decimals."""
    folder = data / "e2e_nlg/e2e-metrics-example-inputs"
    outputs = (folder / "baseline-output.txt").read_text(encoding="utf-8").splitlines()
    groups = (folder / "devel-conc.txt").read_text(encoding="utf-8").strip().split("\n\n")
    found = as_official(
        metrics.get("e2e_metrics")(outputs, [group.split("\n") for group in groups])
    )
    official = dict(zip(KEYS, (0.7203, 7.7889, 0.4801, 0.7910, 2.3039), strict=True))
    assert found == pytest.approx(official, abs=FOUR_DECIMALS, rel=0)


def test_e2e_metrics_without_the_data(no_data, e2e):
    """The approximate values are off by less than the third decimal of what papers print."""
    bleu, nist, _, rouge_l, cider = E2E["tgen"]
    found = metrics.get("e2e_metrics")(*e2e("tgen"))
    assert list(found) == ["bleu", "nist", "rouge_l_approx", "cider_approx"]
    assert found["bleu"] == pytest.approx(100 * bleu, abs=100 * SIX_DECIMALS)
    assert found["nist"] == pytest.approx(nist, abs=SIX_DECIMALS)
    assert found["rouge_l_approx"] == pytest.approx(100 * rouge_l, abs=0.001)
    assert found["cider_approx"] == pytest.approx(cider, abs=0.0005)


@pytest.fixture(scope="session")
def dart(data) -> tuple[list[str], list[list[str]]]:
    """BART-large on DART's test set: the first 1,000 of 4,159 inputs, each with all its texts."""
    entries = json.loads(
        (data / "dart/rebuilt/dart-v1.1.1-full-test.json").read_text(encoding="utf-8")
    )
    lines = (
        (data / "dart/eval_example/bart-large_dart.txt").read_text(encoding="utf-8").splitlines()
    )
    outputs: dict[str, str] = {}
    references: dict[str, list[str]] = {}
    for entry, line in zip(entries, lines, strict=True):
        source = " | ".join(f"{s} : {r.lower()} : {o}" for s, r, o in entry["tripleset"])
        outputs.setdefault(source, line)
        references.setdefault(source, []).extend(
            annotation["text"] for annotation in entry["annotations"]
        )
    assert len(outputs) == 4159
    return list(outputs.values())[:1000], list(references.values())[:1000]


# eval.py -nr 6 of the LoRA paper's code (commit c4593f0) with NLTK 3.5 and pyter3 0.3; BLEU is
# printed with two decimals
def test_bleu_and_ter_of_generation_eval(dart, no_data):
    found = metrics.get("generation_eval")(*dart)
    assert found["bleu"] == pytest.approx(47.34, abs=0.005)
    assert found["ter"] == pytest.approx(0.461879, abs=SIX_DECIMALS)


@pytest.mark.slow
def test_meteor_of_generation_eval(dart, real_data):
    outputs, references = dart
    found = metrics.get("generation_eval")(outputs, references)
    assert found["meteor"] == pytest.approx(0.396538, abs=SIX_DECIMALS)
    filled = [(texts + texts[:1] * 6)[:6] for texts in references[:50]]
    expected = metrics.get("generation_eval")(outputs[:50], references[:50])
    assert metrics.get("generation_eval")(outputs[:50], filled) == expected


@pytest.mark.slow
def test_meteor_of_extremes(real_data):
    meteor = metrics.get("meteor")
    assert meteor(["The cat sat.", "a dog"], ["The cat sat.", ["x", "A dog!"]]) == {
        "meteor": pytest.approx(1.0)
    }
    assert meteor(["", ""], ["The cat sat.", "a dog"]) == {"meteor": 0.0}
    assert 0 < meteor(["", "a dog"], ["The cat sat.", "a dog"])["meteor"] < 1


@pytest.mark.slow
def test_texts_of_any_kind_keep_their_place(real_data):
    """Line ends, empty texts and the protocol's own sign, between two right answers."""
    odd = [
        "",
        " ",
        "\n",
        "a ||| b",
        "|||",
        "x\r\ny\u2028z\x85\x0b\x0c",
        "\u00a0½ 1 1/2",
        "\u200d😀",
        "- . ! ()",
        "\x00",
        "",
    ]
    texts = ["the cat sat", *odd, "a dog runs"]
    scores = metrics.get("e2e_metrics")(
        texts, [["the cat sat"], *(["q q q q"] for _ in odd), ["a dog runs"]]
    )
    assert tuple(scores) == KEYS
    assert scores["rouge_l"] == pytest.approx(100 * 2 / len(texts))
    assert scores["meteor"] > 0
