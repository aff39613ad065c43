"""Metrics of texts by hand; what they are on real outputs is in test_official.py."""

from __future__ import annotations

import math
import random

import pytest
from rapidfuzz.distance import LCSseq, Levenshtein

from lorakit.metrics import metrics
from lorakit.metrics._meteor.ptb import Tokens, approximate
from lorakit.metrics.cider import Cider
from lorakit.metrics.generation_eval import lowered, words
from lorakit.metrics.nist import BETA, corpus_nist
from lorakit.metrics.rouge_l import mean_rouge_l
from lorakit.metrics.ter import edit_rate

OUTPUT: str = "THIS WEEK THE SAUDIS denied information published in the new york times"
REFERENCE: str = (
    "SAUDI ARABIA denied THIS WEEK information published in the AMERICAN new york times"
)


def tokens(predictions: list[str], references: list[list[str]]) -> Tokens:
    return Tokens(
        [text.split() for text in predictions],
        [[t.split() for t in texts] for texts in references],
        True,
    )


def nist(predictions: list[str], references: list[list[str]]) -> float:
    return corpus_nist(predictions, references).score()["nist"]


def rouge_l(predictions: list[str], references: list[list[str]]) -> float:
    return mean_rouge_l(tokens(predictions, references)).score()["rouge_l"]


def cider(predictions: list[str], references: list[list[str]]) -> float:
    return Cider(tokens(predictions, references)).score()["cider"]


def test_nist_adds_up_what_matches_tell():
    # of two words each tells log2(2/1) = 1 bit, and the second nothing once the first is known
    assert nist(["a b"], [["a b"]]) == pytest.approx(1.0)
    assert nist(["A, B."], [["a , b ."]]) == pytest.approx(
        2.0
    )  # case and tokens: four of log2(4/1) bits, / 4
    assert nist(["x y"], [["a b"]]) == 0.0


def test_nist_halves_at_two_thirds_of_the_length():
    assert nist(["a b"], [["a b c"]]) == pytest.approx(math.log2(3) / 2)


def test_nist_with_several_references():
    # a tells log2(4/2) and b log2(4/1) bits, over 2; b after one of two a tells 1 more; the mean
    # length is 2
    assert nist(["a b"], [["a b c", "a"]]) == pytest.approx(3 / 2 + 1)


def test_nist_of_empty_texts():
    # an empty text is one empty token: 1 bit for a, 1 for the empty one, over 2 tokens
    assert nist(["a", ""], [["a"], [""]]) == pytest.approx(1.0)
    assert nist(["", ""], [["a b"], ["c"]]) == 0.0


def test_nist_counts_short_outputs_as_the_official_script():
    """The empty output is 1 unigram, 0 bigrams, -1 trigrams."""
    bits = [2 * math.log2(6 / 2) + math.log2(6 / 1), 1.0, 1.0]  # a, b, c; c after b; c after a b
    value = bits[0] / (4 + 1) + bits[1] / (3 + 0) + bits[2] / (2 - 1)
    found = nist(["a b c c", ""], [["a b c"], ["a b d"]])
    assert found == pytest.approx(value * math.exp(-BETA * math.log(5 / 6) ** 2))


def test_ter_of_the_example_in_pyter():
    assert edit_rate(OUTPUT.split(), REFERENCE.split()) == pytest.approx(4 / 13)


@pytest.mark.parametrize(
    ("output", "reference", "rate"),
    [
        ("a b c d", "a b c d", 0.0),
        ("c d a b", "a b c d", 0.25),  # one shift
        # pyter takes the last of equal shifts; the first would lead to 2 edits
        ("f d c e", "c d e f", 0.75),
        ("a x c d", "a b c d", 0.25),
        ("a b c d e f", "a b c", 1.0),
        ("a b c d e f g", "a b c", 4 / 3),
        ("A", "a", 1.0),
        ("", "a b", 1.0),
        ("a b", "", 1.0),
        ("", "", 1.0),
    ],
)
def test_ter_by_hand(output, reference, rate):
    assert edit_rate(output.split(), reference.split()) == pytest.approx(rate)


def test_ter_takes_the_nearest_reference_and_the_mean_of_examples():
    found = metrics.get("ter")(["a b", "c d"], [["x y", "a b"], ["c x", "y x"]])
    assert found == {"ter": pytest.approx((0 + 0.5) / 2)}


def test_rouge_l_takes_precision_and_recall_from_different_references():
    # LCS 2 of 2 (P 1/2, R 1) and 3 of 6 (P 3/4, R 1/2)
    found = rouge_l(["a b c d"], [["a b", "a x b y c z"]])
    assert found == pytest.approx((1 + 1.44) * 0.75 * 1 / (1 + 1.44 * 0.75))


def test_rouge_l_of_empty_texts():
    assert rouge_l(["", "", "a"], [["a"], [""], ["", "b"]]) == pytest.approx(1 / 3)


def test_cider_by_hand():
    # one word each: only n = 1 counts, a quarter of 10
    assert cider(["a", "b"], [["a"], ["b"]]) == pytest.approx(2.5)
    assert cider(["b", "a"], [["a"], ["b"]]) == 0.0
    # a word twice is clipped, so the cosine is 1/2; one bigram more shortens it by exp(-1/72)
    assert cider(["a a", "b"], [["a"], ["b"]]) == pytest.approx(
        (2.5 * math.exp(-1 / 72) / 2 + 2.5) / 2
    )
    # an n-gram of every example tells nothing
    assert cider(["a", "a"], [["a"], ["a", "b"]]) == 0.0


def test_cider_of_right_answers_is_10():
    texts = ["a b c d e", "f g h i"]
    assert cider(texts, [[text] for text in texts]) == pytest.approx(10.0)


def test_the_distances_are_those_of_the_table():
    draw = random.Random(0)
    for _ in range(80):
        a, b = (draw.choices("abc", k=draw.randrange(90)) for _ in range(2))
        common, edits = tables(a, b)
        assert LCSseq.similarity(a, b) == common
        assert Levenshtein.distance(a, b) == edits


def tables(a: list[str], b: list[str]) -> tuple[int, int]:
    common, edits = [0] * (len(b) + 1), list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        above_common, above, common, edits = common, edits, [0], [i]
        for j, y in enumerate(b, start=1):
            common.append(above_common[j - 1] + 1 if x == y else max(above_common[j], common[-1]))
            edits.append(min(above[j] + 1, edits[-1] + 1, above[j - 1] + (x != y)))
    return common[-1], edits[-1]


# by CoreNLP 3.4.1, lower-cased, punctuation dropped as pycocoevalcap does it
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Vaults, near Café Adriatic.  From £30!", "the vaults near café adriatic from # 30"),
        ("It's cheap; don't go, can't cannot", "it 's cheap do n't go ca n't can not"),
        (
            "a family-friendly 5-star place (riverside)",
            "a family-friendly 5-star place -lrb- riverside -rrb-",
        ),
        ("Mr. Smith's “pub” at 3,000.50 a.m.", "mr. smith 's pub at 3,000.50 a.m."),
        ("", ""),
    ],
)
def test_approximate_tokens(text, expected):
    assert approximate(text) == expected.split()


def test_texts_as_the_code_of_the_paper_splits_them():
    assert lowered('Él said:\t"It\'s A_b-9.5"').split() == [
        "él",
        "said",
        ":",
        '"',
        "it",
        "'",
        "s",
        "a_b",
        "-",
        "9",
        ".",
        "5",
        '"',
    ]
    assert words(lowered('"cannot"')) == ["``", "can", "not", "``"]


def test_generation_eval_keeps_six_references(no_data):
    others = ["v w", "w x", "x y", "y z", "z v", "v x"]
    score = metrics.get("generation_eval")
    assert score(["a b"], [[*others, "a b"]])["ter"] == 1.0
    assert score(["a b"], [[*others[:5], "A b"]])["ter"] == 0.0


def test_generation_eval_needs_no_filling_up(small_data):
    texts, references = ["a b c d e f", "x"], [["a b c d", "b c d e f g h"], ["x y"]]
    filled = [(accepted + accepted[:1] * 6)[:6] for accepted in references]
    assert metrics.get("generation_eval")(texts, filled) == metrics.get("generation_eval")(
        texts, references
    )
