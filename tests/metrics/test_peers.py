"""Compared with other code: pycocoevalcap 1.2 (CIDEr, ROUGE-L), pyter3 0.3, NLTK 3.10."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from lorakit.metrics._meteor.ptb import Tokens, tokenize
from lorakit.metrics.cider import Cider
from lorakit.metrics.generation_eval import lowered, words
from lorakit.metrics.rouge_l import mean_rouge_l
from lorakit.metrics.ter import edit_rate

pytestmark = pytest.mark.peers
WORDS = list("aaabbcdefgh")


def random_tokens() -> Tokens:
    """With empty texts on both sides."""
    draw = random.Random(0)

    def text() -> list[str]:
        return draw.choices(WORDS, k=draw.choice((0, 1, 2, 4, 8, 15)))

    return Tokens(
        [text() for _ in range(80)],
        [[text() for _ in range(draw.randrange(1, 5))] for _ in range(80)],
        True,
    )


def as_captions(tokens: Tokens) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    references = {
        i: [" ".join(text) for text in texts] for i, texts in enumerate(tokens.references)
    }
    return references, {i: [" ".join(text)] for i, text in enumerate(tokens.predictions)}


def check_captions(tokens: Tokens) -> None:
    cider, rouge = (
        pytest.importorskip(f"pycocoevalcap.{name}.{name}") for name in ("cider", "rouge")
    )
    captions = as_captions(tokens)
    for ours, scorer in ((Cider(tokens), cider.Cider()), (mean_rouge_l(tokens), rouge.Rouge())):
        (found,) = ours.score().values()
        assert found == pytest.approx(scorer.compute_score(*captions)[0], abs=1e-12)


def test_captions_of_random_tokens():
    check_captions(random_tokens())


def test_captions_of_real_texts(e2e):
    predictions, references = e2e("tgen")
    check_captions(tokenize(None, predictions[:100], references[:100]))


def test_ter_of_random_tokens():
    pyter = pytest.importorskip("pyter")
    draw = random.Random(1)
    for _ in range(400):
        output, reference = (draw.choices(WORDS, k=draw.randrange(low, 12)) for low in (0, 1))
        assert edit_rate(output, reference) == pyter.ter(output, reference)


def test_words_of_nltk(data):
    """Nothing but `words` says what NLTK's tokeniser does to text that is already split."""
    tokenizer = pytest.importorskip("nltk.tokenize.destructive").NLTKWordTokenizer()
    entries = json.loads(
        (data / "dart/rebuilt/dart-v1.1.1-full-test.json").read_text(encoding="utf-8")
    )
    texts = [annotation["text"] for entry in entries[:200] for annotation in entry["annotations"]]
    texts += [
        'She said: "I cannot." Gonna, wanna... gotta; gimme "lemme"!',
        "'tis d'ye more'n ''a'' `b` ``c``",
    ]
    for text in texts:
        assert words(lowered(text)) == tokenizer.tokenize(lowered(text))


def test_where_nltk_splits_sentences_makes_no_difference():
    """So the frozen values do not depend on the sentence splitter that eval.py ran with."""
    tokenizer = pytest.importorskip("nltk.tokenize.destructive").NLTKWordTokenizer()
    rows = Path(__file__).parent.parent / "assets" / "scorers" / "rows.jsonl"
    lines = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    for text in [text for line in lines for text in (line["output"], *line["references"])]:
        found = lowered(text).split()
        whole = tokenizer.tokenize(" ".join(found))
        for i in range(1, len(found)):
            parts = (" ".join(found[:i]), " ".join(found[i:]))
            assert [token for part in parts for token in tokenizer.tokenize(part)] == whole
