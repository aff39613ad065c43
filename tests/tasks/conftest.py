"""GLUE's official layouts with rows of our own, three per split."""

from __future__ import annotations

from pathlib import Path

import pytest

MNLI = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
STSB = "index genre filename year old_index source1 source2 sentence1 sentence2"


def table(header: str, *rows: str) -> str:
    """Columns are separated by `|` here, by a tab in the file."""
    lines = ["\t".join(header.split()) if " " in header and "|" not in header else header.replace("|", "\t"), *rows]
    return "".join(line.replace("|", "\t") + "\n" for line in lines if line)


def mnli(tail: str, *answers: str) -> str:
    rows = [
        f"{i}|1|1e|fiction|( )|( )|(R )|(R )|She left the room.|Someone left {i}.{a}" for i, a in enumerate(answers)
    ]
    return table(f"{MNLI} sentence1 sentence2{tail}", *rows)


def stsb(tail: str, *answers: str) -> str:
    rows = [f"{i}|news|a|2012|{i}|none|none|A dog runs.|A dog runs {i}.{a}" for i, a in enumerate(answers)]
    return table(STSB + tail, *rows)


def pairs(first: str, second: str, *answers: str) -> str:
    rows = [f'{i}|Is "that so?|It is "so" {i}.{a}' for i, a in enumerate(answers)]
    return table(f"index|{first}|{second}{'|label' if answers[0] else ''}", *rows)


QQP = "id|qid1|qid2|question1|question2|is_duplicate"
QQP_ROWS = ('7|1|2|Is ""this"" one?|This one?|1', "8|3|4|Who?|Where?|0", "9|5|6|When is it?|What time is it?|1")
NLI = ("|entailment", "|not_entailment", "|entailment")
FILES = {
    "CoLA/train.tsv": table("", "gj04|1||The dog barked.", "gj04|0|*|Dog the barked.", 'gj04|1||He said "no.'),
    "CoLA/dev.tsv": table("", "gj04|0|*|Barked the.", "gj04|1||It barked.", "gj04|1||They bark."),
    "CoLA/test.tsv": table("index|sentence", "0|A bird sang.", "1|Sang bird.", "2|Birds sing."),
    "SST-2/train.tsv": table("sentence|label", "a good film |1", "dull , dull |0", "`` fun '' |1"),
    "SST-2/dev.tsv": table("sentence|label", "a bad film |0", "bright |1", "no |0"),
    "SST-2/test.tsv": table("index|sentence", "0|fine .", "1|weak .", "2|so so ."),
    "MRPC/train.tsv": "\ufeff"
    + table(
        "Quality|#1 ID|#2 ID|#1 String|#2 String",
        '1|1|2|He said " yes .|Yes , he said .',
        "0|3|4|A .|B .",
        "1|5|6|C .|C .",
    ),
    "MRPC/dev.tsv": "\ufeff"
    + table("Quality|#1 ID|#2 ID|#1 String|#2 String", "1|1|2|D .|D .", "0|3|4|E .|F .", "1|5|6|G .|G ."),
    "MRPC/test.tsv": table("index|#1 ID|#2 ID|#1 String|#2 String", "0|1|2|H .|H .", "1|3|4|I .|J .", "2|5|6|K .|K ."),
    "STS-B/train.tsv": stsb(" score", "|5.000", "|0.000", "|2.250"),
    "STS-B/dev.tsv": stsb(" score", "|1.000", "|4.500", "|3.200"),
    "STS-B/test.tsv": stsb("", "", "", ""),
    "QQP/train.tsv": table(QQP, *QQP_ROWS),
    "QQP/dev.tsv": table(QQP, *QQP_ROWS),
    "QQP/test.tsv": table("id|question1|question2", "0|Who?|Who is it?", "1|What?|When?", "2|Why?|Why is that?"),
    "MNLI/train.tsv": mnli(" label1 gold_label", "|neutral|entailment", "|neutral|neutral", "|neutral|contradiction"),
    **{
        f"MNLI/dev_{kind}.tsv": mnli(
            " label1 label2 label3 label4 label5 gold_label",
            "|neutral|a|b|c|d|contradiction",
            "|neutral|a|b|c|d|neutral",
            "|neutral|a|b|c|d|entailment",
        )
        for kind in ("matched", "mismatched")
    },
    "MNLI/test_matched.tsv": mnli("", "", "", ""),
    "MNLI/test_mismatched.tsv": mnli("", "", "", ""),
    "QNLI/train.tsv": pairs("question", "sentence", *NLI),
    "QNLI/dev.tsv": pairs("question", "sentence", *NLI),
    "QNLI/test.tsv": pairs("question", "sentence", "", "", ""),
    "RTE/train.tsv": pairs("sentence1", "sentence2", *NLI),
    "RTE/dev.tsv": pairs("sentence1", "sentence2", *NLI),
    "RTE/test.tsv": pairs("sentence1", "sentence2", "", "", ""),
}


@pytest.fixture
def glue_folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "glue" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return tmp_path / "glue"


@pytest.fixture
def write(tmp_path: Path):
    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write
