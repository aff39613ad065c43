"""GLUE's files with the oddities of the official ones, in sentences of our own, byte for byte, and
the rows that must come out of each, written by hand. `test_glue_real.py` reads the official files,
where they are."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from lorakit.tasks import Data
from lorakit.tasks.glue import Glue

NA = "n/a\t" * 6
PARSES = "( ( A b ) c )\t( d )\t(ROOT (S (NP a)))\t(ROOT (X d))"
MNLI = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
    "sentence1_parse\tsentence2_parse\tsentence1\tsentence2"
)
STSB = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"

# (task, split, file) -> its text, and its rows: (number, text, second text, target)
FILES = {
    # no header; the third column is the author's mark or empty, a text may begin with a quotation
    # mark
    ("cola", "train", "CoLA/train.tsv"): (
        'ab12\t1\t\tThe kettle sang.\nab12\t0\t*\t"Sang kettle the.\ncd3\t1\t\tWho, '
        "then?\u2028Nobody.\n",
        [
            (0, "The kettle sang.", None, 1),
            (1, '"Sang kettle the.', None, 0),
            (2, "Who, then?\u2028Nobody.", None, 1),
        ],
    ),
    # the last line without an end
    ("cola", "validation", "CoLA/dev.tsv"): (
        "ef\t0\t?*\tKettle.\nef\t1\t\tIt sang.",
        [(0, "Kettle.", None, 0), (1, "It sang.", None, 1)],
    ),
    # with a header
    ("cola", "test", "CoLA/test.tsv"): (
        'index\tsentence\n0\tIt "sang".\n1\tSang it.\n',
        [(0, 'It "sang".', None, None), (1, "Sang it.", None, None)],
    ),
    # tokenised, and each ends in a blank
    ("sst2", "train", "SST-2/train.tsv"): (
        "sentence\tlabel\na warm -lrb- if long -rrb- film \t1\n`` dull '' , and 90 minutes of it "
        "\t0\n",
        [
            (0, "a warm -lrb- if long -rrb- film ", None, 1),
            (1, "`` dull '' , and 90 minutes of it ", None, 0),
        ],
    ),
    ("sst2", "validation", "SST-2/dev.tsv"): (
        "sentence\tlabel\nfine \t1\n",
        [(0, "fine ", None, 1)],
    ),
    ("sst2", "test", "SST-2/test.tsv"): (
        "index\tsentence\n0\tneither good nor bad .\n",
        [(0, "neither good nor bad .", None, None)],
    ),
    # a byte-order mark, CRLF, quotation marks that do not pair within a field
    ("mrpc", "train", "MRPC/train.tsv"): (
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
        '1\t101\t102\t" We agree , said Ada .\tAda said " we agree . "\r\n'
        '0\t103\t104\tIt cost $ 5 .\t" It rained .\r\n'
        "1\t105\t106\tCafé Zürich shut .\tThe Café Zürich is shut .\r\n",
        [
            (0, '" We agree , said Ada .', 'Ada said " we agree . "', 1),
            (1, "It cost $ 5 .", '" It rained .', 0),
            (2, "Café Zürich shut .", "The Café Zürich is shut .", 1),
        ],
    ),
    ("mrpc", "validation", "MRPC/dev.tsv"): (
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tA .\tB .\n",
        [(0, "A .", "B .", 0)],
    ),
    ("mrpc", "test", "MRPC/test.tsv"): (
        '\ufeffindex\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n0\t1\t2\tC .\tD , "e .\r\n',
        [(0, "C .", 'D , "e .', None)],
    ),
    # ten columns, nine in the test file; the score is a text with three decimals
    ("stsb", "train", "STS-B/train.tsv"): (
        f"{STSB}\tscore\n"
        "0\tmain-captions\tours\t2012test\t0001\tnone\tnone\tA boat leaves.\tA boat "
        "departs.\t4.800\n"
        '1\tmain-news\tours\t2013\t0002\tnone\tnone\t"Rain," he said.\tNo "rain\t0.333\n',
        [(0, "A boat leaves.", "A boat departs.", 4.8), (1, '"Rain," he said.', 'No "rain', 0.333)],
    ),
    ("stsb", "validation", "STS-B/dev.tsv"): (
        f"{STSB}\tscore\n0\tmain-forums\tours\t2014\t0000\tnone\tnone\tYes.\tYes.\t5.000\n",
        [(0, "Yes.", "Yes.", 5.0)],
    ),
    ("stsb", "test", "STS-B/test.tsv"): (
        f"{STSB}\n0\tmain-news\tours\t2015\t0024\tnone\tnone\tA hen.\tA cock.\n",
        [(0, "A hen.", "A cock.", None)],
    ),
    # the first line is malformed, it is left out and counts; doubled quotation marks are literal
    ("qqp", "train", "QQP/train.tsv"): (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tHow do I knit?\tWhy knit? 0\n"
        + "".join(
            f'{i}\t{i}\t9\tIs ""wool"" warm?\tIs wool warm {i}?\t{i % 2}\n' for i in range(2, 120)
        ),
        [(i - 1, 'Is ""wool"" warm?', f"Is wool warm {i}?", i % 2) for i in range(2, 120)],
    ),
    ("qqp", "validation", "QQP/dev.tsv"): (
        'id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\tn/a\tn/a\t"Who?"\tWho is it?\t1\n',
        [(0, '"Who?"', "Who is it?", 1)],
    ),
    ("qqp", "test", "QQP/test.tsv"): (
        "id\tquestion1\tquestion2\n0\tWhat?\tWhich?\n",
        [(0, "What?", "Which?", None)],
    ),
    # twelve columns; the last is the label, not the one before
    ("mnli", "train", "MNLI/train.tsv"): (
        f"{MNLI}\tlabel1\tgold_label\n"
        f'0\t11\t11n\tfiction\t{PARSES}\tShe sang "low.\tShe sang.\tneutral\tentailment\n'
        f"1\t12\t12c\ttravel\t{PARSES}\tIt is far.\tIt is near.\tcontradiction\tcontradiction\n",
        [(0, 'She sang "low.', "She sang.", 0), (1, "It is far.", "It is near.", 2)],
    ),
    # sixteen columns, and two validation splits
    ("mnli", "validation_matched", "MNLI/dev_matched.tsv"): (
        f"{MNLI}\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n"
        f"0\t{NA}n/a\tTwo came.\tThree "
        "came.\tneutral\tneutral\tentailment\tcontradiction\tneutral\tcontradiction\n",
        [(0, "Two came.", "Three came.", 2)],
    ),
    ("mnli", "validation_mismatched", "MNLI/dev_mismatched.tsv"): (
        f"{MNLI}\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\r\n"
        f"0\t{NA}n/a\tIt is , well , late .\tIt is late .\tn/a\tn/a\tn/a\tn/a\tn/a\tentailment\r\n",
        [(0, "It is , well , late .", "It is late .", 0)],
    ),
    ("mnli", "test_matched", "MNLI/test_matched.tsv"): (
        f"{MNLI}\n0\t{NA}n/a\tOne.\tTwo.\n",
        [(0, "One.", "Two.", None)],
    ),
    ("mnli", "test_mismatched", "MNLI/test_mismatched.tsv"): (
        f"{MNLI}\n0\t{NA}n/a\tThree.\tFour.\n",
        [(0, "Three.", "Four.", None)],
    ),
    ("qnli", "train", "QNLI/train.tsv"): (
        "index\tquestion\tsentence\tlabel\n"
        '7\tWho wrote "Tides"?\t"Tides" was written in 1901 by A. Berg.\tentailment\n'
        '9\tWhen was it?\tIt was "late\tnot_entailment\n',
        [
            (0, 'Who wrote "Tides"?', '"Tides" was written in 1901 by A. Berg.', 0),
            (1, "When was it?", 'It was "late', 1),
        ],
    ),
    ("qnli", "validation", "QNLI/dev.tsv"): (
        "index\tquestion\tsentence\tlabel\n0\tWhere?\tThere.\tnot_entailment\n",
        [(0, "Where?", "There.", 1)],
    ),
    # mirrors add the hub's hidden label to test files
    ("qnli", "test", "QNLI/test.tsv"): (
        "index\tquestion\tsentence\tlabel\n0\tWhy?\tSo.\t-1\n",
        [(0, "Why?", "So.", None)],
    ),
    # columns in another order
    ("rte", "train", "RTE/train.tsv"): (
        "label\tindex\tsentence2\tsentence1\nnot_entailment\t0\tIt rained.\tIt was dry.\n"
        "entailment\t1\tIt rained.\tIt rained all day.\n",
        [(0, "It was dry.", "It rained.", 1), (1, "It rained all day.", "It rained.", 0)],
    ),
    ("rte", "validation", "RTE/dev.tsv"): (
        "index\tsentence1\tsentence2\tlabel\r\n0\tA.\tB.\tentailment\r\n",
        [(0, "A.", "B.", 0)],
    ),
    ("rte", "test", "RTE/test.tsv"): (
        "index\tsentence1\tsentence2\n0\tC.\u00a0\tD.\x85E.\n",
        [(0, "C.\u00a0", "D.\x85E.", None)],
    ),
}


@pytest.fixture
def folder(tmp_path):
    for (_, _, name), (text, _) in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    return str(tmp_path)


@pytest.mark.parametrize(("name", "split"), [key[:2] for key in FILES])
def test_the_rows_are_those_of_the_file(folder, name, split):
    (_, wanted) = next(found for key, found in FILES.items() if key[:2] == (name, split))
    examples = Glue(name=f"glue/{name}").read(split, Data(path=folder))
    assert [(e.id, e.text, e.pair, e.target) for e in examples] == [
        (f"{split}-{number}", text, pair, target) for number, text, pair, target in wanted
    ]


def test_every_split_of_every_task_is_here():
    wanted = set()
    for name in {key[0] for key in FILES}:
        task = Glue(name=f"glue/{name}")
        wanted |= {(name, split) for split in ("train", *task.eval_splits, *task.test_splits)}
    assert len({name for name, _ in wanted}) == 8
    assert {key[:2] for key in FILES} == wanted


@pytest.mark.parametrize("name", ["wnli", "ax"])
def test_the_ninth_is_refused_by_its_name(name):
    """WNLI is left out by the paper; its layout is that of RTE, with 0 and 1."""
    with pytest.raises(ValidationError, match=f"glue/{name}: "):
        Glue(name=f"glue/{name}")
