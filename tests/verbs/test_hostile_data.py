"""500 hostile data files, of every kind that a task reads: examples of the declared types, or a
refusal."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import random as drawing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorakit.errors import DataError
from lorakit.files.documents import read_json, read_xml
from lorakit.files.tables import rows
from lorakit.tasks import Data, Example, Head, Task, Turn, tasks
from tests.hostile import CANARY, Trial, as_json, damaged, deep, each, mutated, tiers

ENTITIES = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
XML = (
    f'<!DOCTYPE b [<!ENTITY l0 "lol">{ENTITIES}]><benchmark>&l11;</benchmark>',
    "<!DOCTYPE b [<!ENTITY x SYSTEM "
    '"file:///etc/passwd">]><benchmark><entries>&x;</entries></benchmark>',
    '<!DOCTYPE b SYSTEM "http://127.0.0.1:9/x.dtd"><benchmark/>',
    '<?xml version="1.0" encoding="nothing"?><benchmark/>',
    '<?xml version="1.0" encoding="utf-16"?><benchmark/>',
    '<?xml version="1.0" encoding="shift_jis"?><benchmark/>',
    '<?xml version="1.0" encoding="punycode"?><benchmark/>',
    '<?xml version="1.0" encoding="base64"?><benchmark/>',
    "<a>" * 50_000,
    "<a>" * 50_000 + "</a>" * 50_000,
    "<benchmark>" + "<entry/>" * 20_000 + "</benchmark>",
    '<benchmark xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include '
    'href="/etc/passwd"/></benchmark>',
    f'<?xml-stylesheet href="x"?><?php touch("{CANARY}")?><benchmark/>',
    "<benchmark>&#0;</benchmark>",
    "",
    "\x00",
)
JSON = (
    "[" * 100_000,
    '{"a":' * 100_000,
    "9" * 5000,
    "[" + "9" * 5000 + "]",
    "1e999",
    "NaN",
    "[NaN]",
    '"\\ud800"',
    "[]",
    "{}",
    "null",
    "true",
    json.dumps(deep(900)),
    '{"a": 1, "a": 2}',
    "[" + "0," * 300_000 + "0]",
    "\ufeff[]",
    "\x00",
    "",
    '{"__class__": "os.system"}',
    '"' + "x" * 3_000_000 + '"',
    "-",
    "[1,]",
    "{'a': 1}",
    "//\n[]",
)


@dataclass(frozen=True)
class Kind:
    """What is read in a folder: the files by name, the last of which is made hostile. lines: a JSON
    value on each."""

    task: dict[str, Any]
    files: dict[str, Any]
    lines: bool = False
    own: bool = False

    def make(self, folder: Path) -> tuple[Task, Data]:
        own = (
            {
                split: str(folder / name)
                for split, name in zip(("validation", "train"), self.files, strict=True)
            }
            if self.own
            else {}
        )
        task = tasks.get(self.task["name"].split("/")[0]).model_validate({**self.task, **own})
        return task, Data() if self.own else Data(path=str(folder))


def lines(values: list[Any]) -> str:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def table(header: str, *records: str) -> str:
    return "".join(line.replace("|", "\t") + "\n" for line in (header, *records))


MRPC = table(
    "Quality|#1 ID|#2 ID|#1 String|#2 String",
    '1|1|2|He said " yes .|Yes .',
    "0|3|4|A .|B .",
    "1|5|6|C|C",
)
COLA = "".join(f"gj04\t{i % 2}\t\tThe dog barked {i}.\n" for i in range(150))
STSB = table(
    "index genre filename year old_index source1 source2 sentence1 sentence2 score".replace(
        " ", "|"
    ),
    *(f"{i}|news|a|2012|{i}|none|none|A dog runs.|A dog runs {i}.|{i}.25" for i in range(5)),
)
MNLI = table(
    "index|sentence1|sentence2|label1|gold_label",
    *(
        f"{i}|She left.|Someone left.|neutral|{label}"
        for i, label in enumerate(("neutral", "entailment", "contradiction"))
    ),
)
E2E = (
    'mr,ref\n"name[The Vaults], eatType[pub], priceRange[more than £30]","The Vaults, a ""pub"".\n'
    'Dear."\n'
    '"name[Aromi], food[Chinese]",Aromi is Chinese.\n'
)
E2E_TEXT = "name : Aromi | Type : pub||Aromi is a pub .\nname : A | food : B||A has B .\n"
WEBNLG = (
    '<?xml version="1.0" encoding="utf-8"?>\n<benchmark><entries><entry category="Airport" '
    'eid="Id1" size="1">'
    "<originaltripleset><otriple>A | b | "
    "C</otriple></originaltripleset><modifiedtripleset><mtriple>Aarhus | leader | "
    'Jacob</mtriple></modifiedtripleset><lex comment="good" lid="Id1">Jacob leads &amp; serves '
    "Aarhus.</lex></entry>"
    '<entry category="City" eid="Id2"><modifiedtripleset><mtriple>A | b | C</mtriple><mtriple>C | '
    "d | E</mtriple>"
    '</modifiedtripleset><lex comment="good">Ünï.</lex><lex '
    'comment="bad">no</lex></entry></entries></benchmark>\n'
)
WEBNLG_JSON = {
    "entries": [
        {
            str(i): {
                "category": "Airport",
                "modifiedtripleset": [{"subject": "A", "property": "b", "object": f"C{i}"}],
                "lexicalisations": [
                    {"comment": "good", "lex": "A b C."},
                    {"comment": "bad", "lex": "x"},
                ],
            }
        }
        for i in range(3)
    ]
}
DART = [
    {
        "tripleset": [["A", "B", f"C{i}"]],
        "annotations": [{"source": "x", "text": "A b c."}, {"source": "y", "text": "é"}],
    }
    for i in range(3)
]
PACKED = gzip.compress(json.dumps(DART).encode(), mtime=0)
TABLES = [
    {
        "id": "1-1",
        "header": ["Name", "Year", None],
        "types": ["text", "real", "text"],
        "rows": [["a", 1.0, "x"], ["b", 2, None]],
        "page_title": "t",
    }
]
QUESTIONS = [
    {
        "phase": 1,
        "table_id": "1-1",
        "question": "Which  year?",
        "sql": {"sel": 1, "agg": 0, "conds": [[0, 0, "a"]]},
    },
    {
        "phase": 1,
        "table_id": "1-1",
        "question": "How many?",
        "sql": {"sel": 0, "agg": 3, "conds": [[1, 1, 1.5]]},
    },
]
SAMSUM = [
    {"id": f"1{i}-1", "dialogue": "Ann: hi\r\nBob: \U0001f600", "summary": "Ann greets."}
    for i in range(3)
]
SAMSUM_CSV = 'id,dialogue,summary\n1,"Ann: hi\r\nBob: ""yes""",Ann greets.\n2,A: b,C.\n'
TEXTS = [{"prompt": f"name {i}", "completion": f" it is {i}", "n": i} for i in range(4)]
TURNS = [("user", "hi"), ("assistant", "yes"), ("user", "so?"), ("assistant", "no")]
CHATS = [
    {"messages": [{"role": role, "content": f"{said} {i}"} for role, said in TURNS]}
    for i in range(3)
]
LABELS = [{"text": f"it was {i}", "label": ("good", "bad")[i % 2]} for i in range(4)]
NUMBERS = 'text,label\n"one, two",1.5\nthree,-2e3\n'


def parquet(values: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(values), out)
    return out.getvalue()


def two(content: Any, end: str) -> dict[str, Any]:
    return {f"validation{end}": content, f"train{end}": content}


KINDS = {
    "mrpc": Kind({"name": "glue/mrpc"}, {"MRPC/train.tsv": MRPC}),
    "cola": Kind({"name": "glue/cola"}, {"CoLA/train.tsv": COLA}),
    "stsb": Kind({"name": "glue/stsb"}, {"STS-B/train.tsv": STSB}),
    "mnli": Kind({"name": "mnli_causal"}, {"MNLI/train.tsv": MNLI}),
    "e2e csv": Kind({"name": "e2e"}, {"trainset.csv": E2E}),
    "e2e text": Kind({"name": "e2e", "text_form": "tokenised"}, {"train.txt": E2E_TEXT}),
    "webnlg xml": Kind({"name": "webnlg"}, {"train/1.xml": WEBNLG}),
    "webnlg json": Kind({"name": "webnlg"}, {"train.json": WEBNLG_JSON}),
    "dart": Kind({"name": "dart"}, {"dart-v1.1.1-full-train.json": DART}),
    "dart packed": Kind({"name": "dart"}, {"dart-v1.1.1-full-train.json.gz": PACKED}),
    "wikisql questions": Kind(
        {"name": "wikisql"}, {"train.tables.jsonl": TABLES, "train.jsonl": QUESTIONS}, True
    ),
    "wikisql tables": Kind(
        {"name": "wikisql"}, {"train.jsonl": QUESTIONS, "train.tables.jsonl": TABLES}, True
    ),
    "samsum json": Kind({"name": "samsum"}, {"train.json": SAMSUM}),
    "samsum csv": Kind({"name": "samsum"}, {"train.csv": SAMSUM_CSV}),
    "text jsonl": Kind({"name": "text"}, two(TEXTS, ".jsonl"), lines=True, own=True),
    "template": Kind(
        {"name": "text", "prompt": "{prompt} {n}:"}, two(TEXTS, ".jsonl"), lines=True, own=True
    ),
    "chats": Kind(
        {"name": "text", "messages": "messages"}, two(CHATS, ".jsonl"), lines=True, own=True
    ),
    "text parquet": Kind({"name": "text"}, two(parquet(TEXTS), ".parquet"), own=True),
    "text tsv": Kind({"name": "text"}, two("prompt\tcompletion\na\tb\nc\td\n", ".tsv"), own=True),
    "labels": Kind({"name": "classification"}, two(LABELS, ".jsonl"), lines=True, own=True),
    "numbers": Kind({"name": "regression"}, two(NUMBERS, ".csv"), own=True),
}


def content(value: Any, one_per_line: bool) -> bytes:
    if isinstance(value, (str, bytes)):
        return value.encode() if isinstance(value, str) else value
    return (lines(value) if one_per_line else json.dumps(value)).encode()


def hostile(kind: Kind, name: str, value: Any, random: Random) -> bytes:
    if not isinstance(value, (str, bytes)) and random.random() < 0.6:
        if not kind.lines:
            return as_json(mutated(value, random), random)
        found = mutated(value, random)
        return b"\n".join(
            as_json(line, random) for line in (found if isinstance(found, list) else [found])
        )
    data = content(value, kind.lines)
    if random.random() < 0.2:
        whole = random.choice(XML if name.endswith("xml") else JSON).encode(
            "utf-8", "surrogatepass"
        )
        data = whole if random.random() < 0.5 else data + b"\n" + whole
        return gzip.compress(data) if name.endswith(".gz") else data
    if name.endswith(".gz") and random.random() < 0.5:
        return gzip.compress(damaged(gzip.decompress(data), random))
    return damaged(data, random)


def is_right(task: Task, examples: list[Example]) -> None:
    """Of the types that the contract of a task names."""
    assert isinstance(examples, list)
    for example in examples:
        assert isinstance(example, Example)
        assert isinstance(example.id, str)
        assert isinstance(example.text, str)
        assert example.pair is None or isinstance(example.pair, str)
        assert all(isinstance(text, str) for text in example.references)
        assert all(isinstance(turn, Turn) and isinstance(turn.text, str) for turn in example.turns)
        if task.head is Head.CLASSIFICATION:
            assert type(example.target) is int
            assert 0 <= example.target < len(task.labels)
        elif task.head is Head.REGRESSION:
            assert type(example.target) is float
            assert math.isfinite(example.target)
        else:
            assert isinstance(example.target, str)
            assert example.target.strip()
    assert len({example.id for example in examples}) == len(examples)


@tiers(50, 500)
def test_hostile_data(tmp_path, count):
    trial = Trial(tmp_path / "data")
    made: dict[str, tuple[Task, Data]] = {}
    for name, kind in KINDS.items():
        folder = trial.folder / name
        for file, value in kind.files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content(value, kind.lines))
        made[name] = kind.make(folder)
        is_right(made[name][0], made[name][0].read("train", made[name][1]))

    def one(random: Random) -> None:
        name = random.choice(list(KINDS))
        kind, (file, value) = KINDS[name], list(KINDS[name].files.items())[-1]
        data = hostile(kind, file, value, random)
        path = trial.folder / name / file
        path.write_bytes(data)
        task, settings = kind.make(trial.folder / name)  # it keeps the labels that it has read
        trial.read(
            (name, data), lambda: task.read("train", settings), lambda found: is_right(task, found)
        )
        path.write_bytes(content(value, kind.lines))

    each(count, trial, one)


def refused(tmp_path: Path, name: str, data: bytes, read: Callable[[Path], Any]) -> None:
    """Or read; and never anything else."""
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / name
    file.write_bytes(data)
    Trial(tmp_path / "data").read(name, lambda: read(file), lambda found: None)


@pytest.mark.parametrize("text", XML, ids=lambda text: ascii(text[:30]))
def test_each_hostile_xml(tmp_path, text):
    refused(tmp_path, "x.xml", text.encode(), read_xml)


@pytest.mark.parametrize("text", JSON, ids=lambda text: ascii(text[:30]))
def test_each_hostile_json(tmp_path, text):
    refused(tmp_path, "x.json", text.encode(), read_json)


@pytest.mark.parametrize("text", JSON, ids=lambda text: ascii(text[:30]))
def test_each_hostile_jsonl(tmp_path, text):
    refused(tmp_path, "x.jsonl", text.encode(), lambda file: list(rows(file, ["a"])))


@pytest.mark.parametrize("end", ["csv", "tsv", "parquet"])
def test_endless_fields(tmp_path, end):
    refused(tmp_path, f"x.{end}", b"a\n" + b"x" * 4_000_000, lambda file: list(rows(file, ["a"])))


def test_parquet_with_every_byte_changed(tmp_path):
    """One at a time; of a file whose texts are long enough to be packed."""
    good = parquet([{"a": f"text {i} " + "x" * 50} for i in range(20)])
    file = tmp_path / "data" / "x.parquet"
    file.parent.mkdir()
    trial, random = Trial(file.parent), drawing.Random(0)
    for at in range(0, len(good), 7):
        data = bytearray(good)
        data[at] ^= 1 << random.randrange(8)
        file.write_bytes(data)
        trial.read(at, lambda: list(rows(file, ["a"])), lambda found: None)
    assert trial.counts["refused"]


def test_csv_that_says_formulas_is_text(tmp_path):
    out = io.StringIO()
    csv.writer(out).writerows([["a"], [f"=cmd|'/c touch {CANARY}'!A0"]])
    (tmp_path / "x.csv").write_text(out.getvalue())
    assert list(rows(tmp_path / "x.csv", ["a"])) == [(2, {"a": f"=cmd|'/c touch {CANARY}'!A0"})]
    with pytest.raises(DataError):
        list(rows(tmp_path / "x.csv", ["b"]))
