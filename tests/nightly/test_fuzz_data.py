"""300 data files: what is read is what was written, each text and each label, or the file is
refused.

Half are a user's own tables (csv, tsv, jsonl) written from values that are known, in several
encodings; half are the layouts of all tasks, damaged, of which no more can be said than that the
examples are of the declared types."""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest

from lorakit.tasks import Data, Example, tasks
from tests.hostile import damaged
from tests.nightly.plan import Silent, Tried
from tests.verbs.test_hostile_data import KINDS, content, hostile, is_right

TEXTS = (
    "it was good",
    "bad, very bad",
    'he said "yes"',
    '"',
    "'",
    "two\nlines",
    "two\r\nlines",
    "a\rb",
    "tab\there",
    " lead",
    "trail ",
    "\u2028",
    "x\u2029y",
    "\x85",
    "\x1c",
    "\ufeffmark",
    "\x00",
    "\u202eright to left",
    "e\u0301 and \u00e9",
    "\U0001f600",
    "=1+1",
    "#",
    "\\",
    "\\n",
    "</s>",
    "<pad>",
    "NaN",
    "null",
    "None",
    "N/A",
    "",
    " ",
    "0",
    "1.0",
    "true",
    "{x}",
    "[bold]x[/bold]",
    "x" * 5000,
    "long " * 40_000,
    "中文",
    "naïve café",
    ",",
    ";",
    "|",
    "a" * 300 + '"',
    "\x1b[31mred",
)
LABELS = (
    ("good", "bad"),
    ("good", "bad"),
    ("good", "bad"),
    ("0", "1"),
    ("1", "1.0", "2"),
    ("Topic", "topic", "other"),
    ("yes", "yes ", "no"),
    ("true", "false"),
    ("NaN", "a"),
    ("null", "a"),
    ("", "a"),
    ("é", "e\u0301"),
    ("a,b", "c"),
    ("01", "1", "2"),
    ("a", "a"),
    ("\u202ea", "b"),
    ("10", "9", "8"),
    ("-1", "1"),
    ("0", "0.0", "-0"),
    ("A", "\u0410", "b"),
)
JSON_LABELS = (
    (0, 1),
    (0, 1, 1.0),
    (True, False),
    (1, "1", "b"),
    (None, "a", "b"),
    (1.5, 2.5),
    (1, True, 0),
    ("a", ["b"], "c"),
)
JSON_TEXTS = (None, 1, 1.5, True, ["a"], {"a": 1}, float("nan"), "\ud800")
ENCODINGS = ("utf-8",) * 8 + ("utf-8-sig", "utf-16", "latin-1", "cp1252", "utf-32", "shift_jis")
SPLITS = ("train", "validation")


class Words(logging.Handler):
    """What lorakit said."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def drawn(random: Random, end: str) -> list[dict[str, Any]]:
    """Rows of a text and a label; most of them are plain."""
    labels: tuple[Any, ...] = random.choice(LABELS)
    odd = random.random() < 0.6
    rows = [
        {
            "text": random.choice(TEXTS) if odd and random.random() < 0.3 else f"it was {i}",
            "label": labels[i % len(labels)],
        }
        for i in range(random.randrange(4, 12))
    ]
    if end == ".jsonl" and random.random() < 0.4:
        labels = random.choice(JSON_LABELS)
        rows = [{**row, "label": labels[i % len(labels)]} for i, row in enumerate(rows)]
    if end == ".jsonl" and random.random() < 0.2:
        random.choice(rows)["text"] = random.choice(JSON_TEXTS)
    return rows


def as_file(rows: list[dict[str, Any]], end: str, random: Random) -> str:
    if end == ".jsonl":
        ascii_only, line = random.random() < 0.5, random.choice(("\n", "\n", "\r\n", "\n\n"))
        return line.join(json.dumps(row, ensure_ascii=ascii_only) for row in rows) + random.choice(
            (line, "")
        )
    if end == ".tsv":
        return "".join(
            "\t".join(map(str, row)) + "\n" for row in (rows[0], *(row.values() for row in rows))
        )
    out = io.StringIO(newline="")
    line = random.choice(("\n", "\n", "\r\n"))
    writer = csv.DictWriter(
        out,
        list(rows[0]),
        quoting=random.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
        lineterminator=line,
    )
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def fits_in_tsv(rows: list[dict[str, Any]]) -> bool:
    """It has no quoting, and a line's own end is taken off."""
    values = [str(value) for row in rows for value in row.values()]
    return not any("\t" in v or "\n" in v for v in values) and not any(
        str(row["label"]).endswith("\r") for row in rows
    )


def refuse_other(
    rows: list[dict[str, Any]], examples: list[Example], labels: tuple[str, ...], said: list[str]
) -> None:
    """Silent: an example is not what the row says, labels were made one, or a row is odd and
    nothing was said of it."""
    if len(examples) != len(rows):
        raise Silent(f"{'fewer' if len(examples) < len(rows) else 'more'} examples than rows")
    for row, example in zip(rows, examples, strict=True):
        missing = row["text"] is None or row["text"] != row["text"]
        if missing and example.text == "" and said:
            continue
        if example.text != row["text"]:
            raise Silent("a text is another", repr(row["text"])[:80], "is", repr(example.text)[:80])
        if not same_label(row["label"], labels[int(example.target)]):
            raise Silent(
                "a label is another", repr(row["label"]), "is", repr(labels[int(example.target)])
            )
    if said:
        return
    if any(str(row["text"]).strip().lower() in ("", "nan", "null", "none", "n/a") for row in rows):
        raise Silent("a text that is empty, NaN or null was taken without a word")
    if len({alike(label) for label in labels}) < len(labels):
        raise Silent("labels that look alike were taken without a word", repr(labels))
    if any(alike(label) in ("nan", "null", "none", "n/a") for label in labels):
        raise Silent("a label that is NaN or null was taken without a word", repr(labels))


def same_label(written: Any, held: str) -> bool:
    """A number is one label however it is written: 1, 1.0 and "1.0" are "1", in every format."""
    if isinstance(written, str) and "." in written and alike(written) == alike(held):
        return True
    if isinstance(written, (bool, str)):
        return str(written).strip().lower() == held.lower() and (
            isinstance(written, bool) or written.strip() == held
        )
    try:
        return float(written) == float(held)
    except (TypeError, ValueError):
        return str(written) == held


def alike(label: str) -> str:
    try:
        return str(float(label))
    except ValueError:
        return label.strip().lower()


def own_table(tried: Tried, name: str, random: Random, folder: Path) -> None:
    end = random.choice((".csv", ".csv", ".jsonl", ".jsonl", ".tsv"))
    rows = drawn(random, end)
    while end == ".tsv" and not fits_in_tsv(rows):
        rows = drawn(random, end)
    encoding = random.choice(ENCODINGS)
    data = as_file(rows, end, random).encode(
        encoding, "surrogatepass" if "utf" in encoding else "replace"
    )
    whole = encoding in ("utf-8", "utf-8-sig") and random.random() < 0.8
    data = data if whole else damaged(data, random) if random.random() < 0.5 else data
    if random.random() < 0.05:
        end, data = f"{end}.gz", gzip.compress(data)
    files = {split: folder / f"{split}{end}" for split in SPLITS}
    for path in files.values():
        path.write_bytes(data)
    logger, words = logging.getLogger("lorakit"), Words()
    logger.addHandler(words)
    try:
        with tried.case(name, "taken, as written" if whole else "taken, of the right types"):
            task = tasks.get("classification")(
                **{split: str(path) for split, path in files.items()}
            )
            found = {split: task.read(split, Data()) for split in SPLITS}
            for examples in found.values():
                is_right(task, examples)
                if whole:
                    refuse_other(rows, examples, task.labels, words.said)
    finally:
        logger.removeHandler(words)
        for path in files.values():
            path.unlink()


@cache
def bomb() -> bytes:
    """Four megabytes that are four gigabytes in one line: members of a .gz follow one another."""
    part = gzip.compress(b"x" * (16 << 20))
    return gzip.compress(b'[{"tripleset": [["A", "B", "') + part * 256 + gzip.compress(b'"]]}]')


def layout_of_a_task(tried: Tried, name: str, random: Random, folder: Path) -> None:
    which = random.choice(list(KINDS))
    kind = KINDS[which]
    place = folder / which
    for file, value in kind.files.items():
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_bytes(content(value, kind.lines))
    file, value = list(kind.files.items())[-1]
    data = (
        bomb()
        if file.endswith(".gz") and random.random() < 0.3
        else hostile(kind, file, value, random)
    )
    (place / file).write_bytes(data)
    with tried.case(name, "taken, of the right types"):
        task, settings = kind.make(place)
        is_right(task, task.read("train", settings))


def test_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Tried("data files", seconds=10) as tried:
        for name, random in tried.cases(300):
            (own_table if random.random() < 0.5 else layout_of_a_task)(
                tried, name, random, tmp_path
            )
