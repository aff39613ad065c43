"""The official layouts of GLUE, E2E, WebNLG, DART and SAMSum, with three examples per split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorakit.metrics import Facts, Means, metric, metrics

MNLI = (
    "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse "
    "sentence1_parse sentence2_parse"
)
STSB = "index genre filename year old_index source1 source2 sentence1 sentence2"


def table(header: str, *rows: str) -> str:
    """Columns are separated by `|` here, by a tab in the file."""
    lines = [
        "\t".join(header.split())
        if " " in header and "|" not in header
        else header.replace("|", "\t"),
        *rows,
    ]
    return "".join(line.replace("|", "\t") + "\n" for line in lines if line)


def mnli(tail: str, *answers: str) -> str:
    rows = [
        f"{i}|1|1e|fiction|( )|( )|(R )|(R )|She left the room.|Someone left {i}.{a}"
        for i, a in enumerate(answers)
    ]
    return table(f"{MNLI} sentence1 sentence2{tail}", *rows)


def stsb(tail: str, *answers: str) -> str:
    rows = [
        f"{i}|news|a|2012|{i}|none|none|A dog runs.|A dog runs {i}.{a}"
        for i, a in enumerate(answers)
    ]
    return table(STSB + tail, *rows)


def pairs(first: str, second: str, *answers: str) -> str:
    rows = [f'{i}|Is "that so?|It is "so" {i}.{a}' for i, a in enumerate(answers)]
    return table(f"index|{first}|{second}{'|label' if answers[0] else ''}", *rows)


QQP = "id|qid1|qid2|question1|question2|is_duplicate"
QQP_ROWS = (
    '7|1|2|Is ""this"" one?|This one?|1',
    "8|3|4|Who?|Where?|0",
    "9|5|6|When is it?|What time is it?|1",
)
NLI = ("|entailment", "|not_entailment", "|entailment")
FILES = {
    "CoLA/train.tsv": table(
        "", "gj04|1||The dog barked.", "gj04|0|*|Dog the barked.", 'gj04|1||He said "no.'
    ),
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
    + table(
        "Quality|#1 ID|#2 ID|#1 String|#2 String", "1|1|2|D .|D .", "0|3|4|E .|F .", "1|5|6|G .|G ."
    ),
    "MRPC/test.tsv": table(
        "index|#1 ID|#2 ID|#1 String|#2 String", "0|1|2|H .|H .", "1|3|4|I .|J .", "2|5|6|K .|K ."
    ),
    "STS-B/train.tsv": stsb(" score", "|5.000", "|0.000", "|2.250"),
    "STS-B/dev.tsv": stsb(" score", "|1.000", "|4.500", "|3.200"),
    "STS-B/test.tsv": stsb("", "", "", ""),
    "QQP/train.tsv": table(QQP, *QQP_ROWS),
    "QQP/dev.tsv": table(QQP, *QQP_ROWS),
    "QQP/test.tsv": table(
        "id|question1|question2", "0|Who?|Who is it?", "1|What?|When?", "2|Why?|Why is that?"
    ),
    "MNLI/train.tsv": mnli(
        " label1 gold_label", "|neutral|entailment", "|neutral|neutral", "|neutral|contradiction"
    ),
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

MR = "name[Aromi], eatType[pub], priceRange[{}], familyFriendly[yes]"
CHEAP, DEAR = MR.format("less than £20"), MR.format("more than £30")


def e2e_csv(*rows: tuple[str, str]) -> str:
    return "mr,ref\r\n" + "".join(f'"{mr}","{text}"\r\n' for mr, text in rows)


E2E = {
    "trainset.csv": e2e_csv(
        (CHEAP, "Aromi is a cheap pub."),
        (DEAR, "A dear pub: Aromi."),
        (CHEAP, "A pub for all.\r\n It is cheap."),
    ),
    "devset.csv": "\ufeff"
    + e2e_csv(
        (CHEAP, "It is cheap."),
        (CHEAP, "So cheap."),
        (DEAR, "It is dear."),
        ("name[Clowns], area[riverside]", "A river runs by."),
        (CHEAP, "It is cheap."),
    ),
    "testset_w_refs.csv": e2e_csv(
        (DEAR, "Dear, that."),
        ("name[Cotto], near[Avalon]", 'Near ""Avalon"".'),
        ("name[Cocum], food[French]", " It is French. "),
    ),
}


def entry(triples: list[str], *texts: str, category: str = "Airport") -> str:
    """A text may start with a comment of its own, `toFix:`."""
    lexes = []
    for text in texts:
        comment, _, rest = text.rpartition(":")
        lexes.append(f'<lex comment="{comment or "good"}" lid="Id1">{rest}</lex>')
    inner = "".join(f"<mtriple>{triple}</mtriple>" for triple in triples)
    return (
        f'<entry category="{category}" eid="Id1" size="{len(triples)}">\n'
        "<originaltripleset><otriple>a | b | c</otriple></originaltripleset>\n"
        f"<modifiedtripleset>{inner}</modifiedtripleset>\n" + "\n".join(lexes) + "\n</entry>\n"
    )


def benchmark(*entries: str) -> str:
    return (
        "<?xml version='1.0' encoding='UTF-8'?>\n<benchmark>\n<entries>\n"
        + "".join(entries)
        + "</entries>\n</benchmark>\n"
    )


LEADER = ["Aarhus | leaderName | Jacob_B."]
LONG = ["Aarhus_Airport | runwayLength | 2776.0", 'Aarhus_Airport | cityServed | "Aarhus, Denmark"']
WEBNLG = {
    "train/2triples/2triples_Airport.xml": benchmark(
        entry(LONG, "It serves Aarhus.", "toFix:It serve.")
    ),
    "train/1triples/1triple_City.xml": benchmark(
        entry(LEADER, "Jacob B. leads.", "Its leader is B.", category="City"),
        entry(["A | b | C"], "toFix:A b C.", category="City"),
    ),
    "dev/1triples/a.xml": benchmark(
        entry(LEADER, "He leads Aarhus."),
        entry(LONG, "It is 2776 m &amp; serves Aarhus."),
        entry(["A | b | C"], "toFix:A b C."),
        entry(["D | b | C"], "D b C."),
        entry(LEADER, "Aarhus is led by him.", category="City"),
    ),
    "test/testdata_with_lex.xml": benchmark(
        entry(LEADER, "B. leads it.", "It is led."),
        entry(["Ann | artist | yes"], "Ann is one.", category="Artist"),
        entry(["Ann | athlete | no"], "Ann is none.", category="Athlete"),
    ),
    "test/testdata_no_lex.xml": benchmark(entry(LEADER)),
    "test/testdata_unseen_with_lex.xml": benchmark(
        entry(["Ann | artist | yes"], "Ann is one.", category="Artist")
    ),
}


def dart_entry(triples: list[list[str]], *texts: str) -> dict:
    return {
        "tripleset": triples,
        "annotations": [{"source": "e2e", "text": text} for text in texts],
    }


COLLEGE = [["Mars Hill", "JOINED", "1973"], ["[TABLECONTEXT]", "[TITLE]", "Colleges"]]
DART = {
    "train": [
        dart_entry(COLLEGE, "It joined in 1973.", "In 1973 it joined."),
        dart_entry([["A", "B", "C"]], "A b C."),
    ],
    "dev": [
        dart_entry([["A", "B", "C"]], "A b C."),
        dart_entry(COLLEGE, "It joined then."),
        dart_entry([["A", "b", "C"]], "C, says A.", "A b C."),
        dart_entry([["D", "B", "C"]], "D b C."),
    ],
    "test": [
        dart_entry([["A", "B", "C"]], "A b &amp; C.", ""),
        dart_entry([["D", "B", "C"]], "D b C."),
        dart_entry([["E", "B", "C"]]),
        dart_entry([["F", "B", "C"]], "F b C."),
    ],
}


def chat(id: str, dialogue: str, summary: str) -> dict:
    return {"id": id, "summary": summary, "dialogue": dialogue}


SAMSUM = {
    "train": [
        chat("101", "Ann: Hi!\r\nBob: Hello.\nAnn: Lunch at 12?", "Ann wants to have lunch.\r\n"),
        chat("102-1", "Cy: Late again.", "Cy is late. "),
        chat("103", "", "Nobody said anything."),
        chat("104", " Di: 😂\r\n\r\nEd: Why?", "Ed asks why.\nDi laughs."),
    ],
    "val": [
        chat("201", "Ann: Who won?\r\nBob: We did!", "Bob's team won."),
        chat("202", "Cy: Bus or train?\r\nDi: Train", "Di goes by train."),
        chat("203", "Ed: <file_gif>", "Ed sent a picture."),
    ],
    "test": [
        chat("301", "Ann: Bye\r\nBob: See you", "Ann leaves.\n\n"),
        chat("302", 'Cy: He said "no"', 'Cy quotes a "no".'),
        chat("303", "Di: I'm home\r\nEd: ok", "Di is at home."),
    ],
}


def put(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return folder


@pytest.fixture
def glue_folder(tmp_path: Path) -> Path:
    return put(tmp_path / "glue", FILES)


@pytest.fixture
def e2e_folder(tmp_path: Path) -> Path:
    return put(tmp_path / "e2e", E2E)


@pytest.fixture
def webnlg_folder(tmp_path: Path) -> Path:
    return put(tmp_path / "webnlg_challenge_2017", WEBNLG)


@pytest.fixture
def dart_folder(tmp_path: Path) -> Path:
    return put(
        tmp_path / "dart",
        {f"dart-v1.1.1-full-{name}.json": json.dumps(DART[name]) for name in DART},
    )


@pytest.fixture
def samsum_folder(tmp_path: Path) -> Path:
    return put(tmp_path / "samsum", {f"{name}.json": json.dumps(SAMSUM[name]) for name in SAMSUM})


SUITES = {
    "e2e_metrics": ("bleu", "nist", "meteor", "rouge_l", "cider"),
    "generation_eval": ("bleu", "meteor", "ter"),
}


class Stub:
    """A suite that counts the predictions among the accepted texts, under all of its keys."""

    def __init__(self, name: str):
        @metric(Facts(of="texts", keys=SUITES[name], printed=1.0))
        def suite(predictions, references):
            pairs = zip(predictions, references, strict=True)
            hits = [100.0 * (said in accepted) for said, accepted in pairs]
            return Means(dict.fromkeys(SUITES[name], hits))

        suite.__name__ = name
        self.load = lambda: suite


@pytest.fixture
def stub_suites(monkeypatch):
    """Replaces the official scorers, which are slow and may need pycocoevalcap."""
    for name in SUITES:
        monkeypatch.setitem(metrics._entry_points, name, Stub(name))
        monkeypatch.delitem(metrics._modules, name, raising=False)
