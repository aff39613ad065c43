"""E2E NLG challenge (Novikova et al. 2017, arXiv 1706.09254): eight slots of a restaurant become a sentence.

The official CSV files and the reference code's text files hold the same rows; those of the latter are tokenised, which
changes every score. A run says which it read.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

from lorakit.errors import DataError, did_you_mean
from lorakit.tasks._base import Example
from lorakit.tasks._files import lines, rows
from lorakit.tasks._generation import Generation, Row, Size
from lorakit.tasks._sources import hub_table, official_file

log = logging.getLogger(__name__)

HUB = "tuetschek/e2e_nlg"
CSV = {"train": "trainset.csv", "validation": "devset.csv", "test": "testset_w_refs.csv"}
TEXT = {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"}
GET_IT = (
    "The .csv files: https://github.com/tuetschek/e2e-dataset. The .txt files, tokenised, of the reference code: "
    "https://github.com/microsoft/LoRA, examples/NLG/data/e2e"
)

# how the reference code's files write what the official ones write
SLOTS = {
    "name": "name",
    "eatType": "Type",
    "food": "food",
    "priceRange": "price",
    "customer rating": "customer rating",
    "area": "area",
    "familyFriendly": "family friendly",
    "near": "near",
}
PRICES = {
    "less than £20": "less than £ 20",
    "£20-25": "£ 20 - 25",
    "more than £30": "more than £ 30",
}

_SLOT = re.compile(r"([^\[\],]+)\[([^\[\]]+)\](?:, )?")
_BREAK = re.compile(r"\s*[\r\n]\s*")


class E2E(Generation):
    """A restaurant's slots to a text. Scored by the challenge's metrics over the 630 contexts of the test set."""

    name: Literal["e2e"] = "e2e"
    metric: ClassVar[str] = "e2e_metrics"
    sizes: ClassVar[dict[str, Size]] = {
        "train": Size(42061, 42061),
        "validation": Size(4672, 547),
        "test": Size(4693, 630),
    }

    def official_rows(self, split: str, path: str) -> tuple[str, list[Row]]:
        file = official_file(path, split, ("", "e2e_nlg", "e2e"), (CSV, TEXT), GET_IT)
        log.info(
            "%s: %s", file, "tokenised text" if file.suffix == ".txt" else "text as it was written"
        )
        if file.suffix == ".txt":
            return str(file), list(_text_rows(file))
        table = rows(file, ["mr", "ref"])
        return str(file), _rows(
            str(file), ((f"{file}:{line}", row["mr"], row["ref"]) for line, row in table)
        )

    def ask(self, text: str) -> Example:
        """`name : Aromi | Type : pub`, or the official form: `name[Aromi], eatType[pub]`."""
        return super().ask(context_of(text, "prompt") if "[" in text else text)

    def hub_rows(self, split: str, revision: str | None) -> tuple[str, list[Row]]:
        instead = f"Give data.path=FOLDER. {GET_IT}"
        table = hub_table(HUB, f"default/{split}/*.parquet", split, revision, instead)
        where = f"{HUB}, {split}"
        columns = ("meaning_representation", "human_reference")
        return where, _rows(
            where, ((f"{where} row {i}", *(row[c] for c in columns)) for i, row in enumerate(table))
        )


def context_of(mr: str, where: str) -> str:
    """`name : Aromi | Type : pub` from `name[Aromi], eatType[pub]`. DataError, with `where`: it is of another form."""
    slots = _SLOT.findall(mr)
    if not slots or ", ".join(f"{slot}[{value}]" for slot, value in slots) != mr:
        raise DataError(
            f"{where}: {mr!r} is no meaning representation; it has the form name[Aromi], eatType[pub]"
        )
    for slot, _ in slots:
        if slot not in SLOTS:
            raise DataError(
                f"{where}: E2E has no slot {slot!r}{did_you_mean(slot, SLOTS)} (slots: {', '.join(SLOTS)})"
            )
    return " | ".join(f"{SLOTS[slot]} : {PRICES.get(value, value)}" for slot, value in slots)


def _rows(source: str, found: Iterable[tuple[str, str, str]]) -> list[Row]:
    """From (where, meaning representation, text). A text is one line: two of the training set's are broken."""
    made, broken = [], 0
    for where, mr, text in found:
        line, breaks = _BREAK.subn(" ", text.strip())
        broken += breaks > 0
        made.append(Row(context_of(mr, where), (_not_empty(line, where),)))
    if broken:
        log.info("%s: %d texts have a line break, and it is read as a space", source, broken)
    return made


def _text_rows(file: Path) -> Iterable[Row]:
    for number, line in lines(file):
        where = f"{file}:{number}"
        parts = line.strip().split("||")
        if len(parts) != 2:
            raise DataError(
                f"{where}: {line.strip()[:80]!r} has {len(parts) - 1} of '||'; a line is CONTEXT||TEXT"
            )
        yield Row(_not_empty(parts[0], where), (_not_empty(parts[1], where),))


def _not_empty(text: str, where: str) -> str:
    if not text.strip():
        raise DataError(f"{where}: the context or the text is empty")
    return text


PLUGIN = E2E
