"""METEOR and CoreNLP's tokens: by hand, on small tables, and compared with what the Java programs
gave for texts of our own.

java_values.json says which programs those were, how they were called, and when.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorakit.metrics import metrics
from lorakit.metrics._meteor.align import align, chunks
from lorakit.metrics._meteor.data import NlgData
from lorakit.metrics._meteor.match import EXACT, PARAPHRASE, STEM, Match, MeteorText, text
from lorakit.metrics._meteor.normalize import words
from lorakit.metrics._meteor.porter2 import stem
from lorakit.metrics._meteor.ptb import _words, official
from lorakit.metrics._meteor.score import added, best_counts, score
from lorakit.metrics._meteor.tables import Related, java_hash, paraphrases, tables
from lorakit.metrics.meteor import corpus_meteor

VALUES = json.loads((Path(__file__).parent / "java_values.json").read_text(encoding="utf-8"))


def read(lines: list[str], data: NlgData) -> list[MeteorText]:
    known = tables(data)
    return [text(words(line, known.abbreviations), known) for line in lines]


def related(data: NlgData, *texts: MeteorText) -> Related:
    return paraphrases(data).among(h for one in texts for at in one.phrases for h in at)


def test_tokens_are_those_of_corenlp(real_data):
    found = official(real_data, [row["text"] for row in VALUES["tokens"]])
    assert found == [_words(row["tokens"].rstrip().split(" ")) for row in VALUES["tokens"]]


def test_counts_and_scores_are_those_of_meteor(real_data):
    rows = VALUES["meteor"]
    for row in rows:
        output, *references = read([row["output"], *row["references"]], real_data)
        counts = best_counts(output, references, related(real_data, output, *references))
        assert counts == row["counts"], row
        assert score(added(counts)) == pytest.approx(row["score"], abs=1e-9, rel=0), row


def test_the_value_of_a_corpus_is_that_of_meteor(real_data):
    outputs = [row["output"].split(" ") for row in VALUES["meteor"]]
    references = [[text.split(" ") for text in row["references"]] for row in VALUES["meteor"]]
    found = corpus_meteor(real_data, outputs, references).score()["meteor"]
    assert found == pytest.approx(VALUES["corpus"], abs=1e-9, rel=0)


def test_by_hand_on_small_tables(small_data):
    # one of two content words matched, in one chunk of one word
    precision = recall = 0.5
    mean = 1 / (0.15 / precision + 0.85 / recall)
    found = metrics.get("meteor")(["cat x"], ["cat y"])["meteor"]
    assert found == pytest.approx(mean * (1 - 0.6))
    # a function word has weight 1/4, a synonym counts 0.8, and nothing is broken
    found = metrics.get("meteor")(["the home"], ["the house"])["meteor"]
    assert found == pytest.approx(0.25 + 0.75 * 0.8)


@pytest.mark.parametrize(
    ("output", "reference", "module"),
    [
        ("the cats", "the cat", 1),
        ("a mice", "a rodent", 2),
        ("x costs little", "x is cheap", 3),
        ("near", "close to", 3),
    ],
)
def test_the_module_that_matches(output, reference, module, small_data):
    texts = read([output, reference], small_data)
    counts = best_counts(texts[0], texts[1:], related(small_data, *texts))
    matched = [sum(counts[4 + 4 * m : 8 + 4 * m]) for m in range(4)]
    assert [m for m in range(1, 4) if matched[m]] == [module]
    assert counts[:2] == counts[-2:]


def test_the_alignment_with_fewest_chunks():
    # the second `a` goes with `b`, though the first one is as good a match
    places = [[Match(0, 1, 0, 1, EXACT), Match(0, 1, 2, 3, EXACT)], [Match(1, 2, 3, 4, EXACT)]]
    assert [match.other for match in align(places)] == [2, 3]
    assert chunks(align(places)) == 1


def test_a_single_word_of_another_form_adds_no_cover():
    # so nothing speaks for it but that a path with it is tried first
    both = [[Match(0, 1, 0, 1, STEM), Match(0, 1, 1, 2, STEM)]]
    assert align(both) in ([], [both[0][0]])
    phrase = [[Match(0, 2, 0, 2, PARAPHRASE), Match(0, 1, 0, 1, EXACT)], []]
    assert len(align(phrase)) == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("u.s. mr. x", "us mr. x"),
        ("no. 5 no. x no. (", "no. 5 no. x no . ("),
        ("end. of", "end. of"),
        ("end.", "end ."),
        ("wait ... x..", "wait ... x .."),
        ("don't 90's rock'n'roll", "don 't 90 's rock 'n'roll"),
        ("well-known u.-s a--b", "well known u. s a b"),
        ("1,000 a,b", "1,000 a , b"),
        ("“x” ''", '" x " "'),
        ("\u00a0x\u2009y\u3000", "x y"),
        ("", ""),
    ],
)
def test_words_of_a_line(line, expected):
    assert words(line, {"mr": 1, "no": 2}) == expected.split(" ") * bool(expected)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        pair.split(":")
        for pair in (
            "running:run hopping:hop hoping:hope relational:relat skies:sky news:news cries:cri "
            "generously:generous ties:tie gas:gas this:this 'tis:tis cat's:cat sayyyy:sayyyi "
            "by:by cry:cri proceed:proceed agreed:agre adoption:adopt controll:control é:é"
        ).split()
    ],
)
def test_stems(word, expected):
    assert stem(word) == expected


def test_words_with_the_hash_of_another():
    assert java_hash("an") == java_hash("c0")
    assert java_hash("hello") == 99162322
    assert java_hash("😀") == 0xD83D * 31 + 0xDE00
