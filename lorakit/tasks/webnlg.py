"""WebNLG challenge 2017 (Gardent et al. 2017): DBpedia triples to text, scored on seen and on unseen categories.

From the official XML files, from the reference code's JSON, or from the hub; all three hold the same entries.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import ClassVar, Literal

from lorakit.errors import DataError, did_you_mean
from lorakit.tasks._generation import Generation, Row, Size, triples_text
from lorakit.tasks._sources import hub_table, official_file
from lorakit.tasks._webnlg import TEST, Entry, hub_entries, json_entries, xml_entries

log = logging.getLogger(__name__)

HUB = "webnlg-challenge/web_nlg"
HOMES = ("", "webnlg_challenge_2017", "webnlg_2017/webnlg_challenge_2017")
XML = {"train": "train", "validation": "dev", "test": "test"}
JSON = {split: f"{folder}.json" for split, folder in XML.items()}
GET_IT = (
    "The folders of .xml files: https://gitlab.com/shimorina/webnlg-dataset, webnlg_challenge_2017. The same as .json: "
    "https://github.com/microsoft/LoRA, examples/NLG/data/webnlg_challenge_2017"
)

SEEN = (
    "Airport",
    "Astronaut",
    "Building",
    "City",
    "ComicsCharacter",
    "Food",
    "Monument",
    "SportsTeam",
    "University",
    "WrittenWork",
)
"""Categories of the training set, as the reference code lists them."""
UNSEEN = ("Artist", "Athlete", "CelestialBody", "MeanOfTransportation", "Politician")


class WebNLG(Generation):
    """Triples to a text. Test examples are of the group `seen` or `unseen`, by their category.

    Only texts with the comment "good" are kept, in every split, as in the reference code; the official files have 77
    others in train and 10 in dev. Five entries of train and one of dev have no good text, and make no example. Entries
    with equal triples are one context: two of dev are, none of the test set's 1,862.
    """

    name: Literal["webnlg"] = "webnlg"
    metric: ClassVar[str] = "generation_eval"
    sizes: ClassVar[dict[str, Size]] = {
        "train": Size(6940, 18025),
        "validation": Size(872, 870),
        "test": Size(1862, 1862),
    }

    def official_rows(self, split: str, path: str) -> tuple[str, list[Row]]:
        found = official_file(path, split, HOMES, (XML, JSON), GET_IT)
        return str(found), _rows(
            str(found), split, xml_entries(found) if found.is_dir() else json_entries(found)
        )

    def hub_rows(self, split: str, revision: str | None) -> tuple[str, list[Row]]:
        files = f"webnlg_challenge_2017/{XML[split]}/*.parquet"
        table = hub_table(HUB, files, split, revision, f"Give data.path=FOLDER. {GET_IT}")
        where = f"{HUB}, {split}"
        return where, _rows(where, split, hub_entries(table, where, split))


def _rows(source: str, split: str, entries: Iterable[Entry]) -> list[Row]:
    others: Counter[str] = Counter()
    made = []
    for entry in entries:
        others.update(comment for _, comment, _ in entry.texts if comment != "good")
        made.append(_row(entry, split))
    if others:
        counts = ", ".join(f"{count} {comment!r}" for comment, count in others.most_common())
        without = sum(not row.texts for row in made)
        log.info(
            "%s: texts left out by their comment: %s; entries that have no other: %d",
            source,
            counts,
            without,
        )
    return made


def _row(entry: Entry, split: str) -> Row:
    known = (*SEEN, *UNSEEN)
    if entry.category not in known:
        near = did_you_mean(entry.category, known)
        raise DataError(
            f"{entry.where}: category {entry.category!r} is none of the 15 of the 2017 challenge{near} "
            f"({', '.join(known)}); is this another release of WebNLG?"
        )
    if not entry.triples:
        raise DataError(f"{entry.where}: an entry without triples (modifiedtripleset)")
    if not entry.texts:
        raise DataError(
            f"{entry.where}: an entry without a text (lex); the test set with texts is {TEST}.xml"
        )
    for where, _, text in entry.texts:
        if not text.strip():
            raise DataError(f"{where}: an empty text")
    good = tuple(text for _, comment, text in entry.texts if comment == "good")
    # every entry of the other splits is of a seen category
    group = ("seen" if entry.category in SEEN else "unseen") if split == "test" else ""
    return Row(triples_text(entry.triples), good, group)


PLUGIN = WebNLG
