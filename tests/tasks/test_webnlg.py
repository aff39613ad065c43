from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from lorakit.errors import DataError
from lorakit.tasks import Data
from lorakit.tasks.webnlg import SEEN, UNSEEN, WebNLG

ROOT = os.environ.get("LORAKIT_DATA")
real = pytest.mark.skipif(
    ROOT is None, reason="LORAKIT_DATA (a folder with webnlg_2017) is not set"
)
LEADER = "Aarhus : leaderName : Jacob_B."
LONG = 'Aarhus_Airport : runwayLength : 2776.0 | Aarhus_Airport : cityServed : "Aarhus, Denmark"'


def read(split: str, folder):
    return WebNLG().read(split, Data(path=str(folder)))


def test_every_good_text_is_learnt_in_the_order_of_the_paths(webnlg_folder, caplog):
    with caplog.at_level(logging.INFO):
        examples = read("train", webnlg_folder)
    assert [(e.id, e.text, e.target, e.references, e.eos) for e in examples] == [
        ("train-0", LEADER, " Jacob B. leads.", (), True),
        ("train-1", LEADER, " Its leader is B.", (), True),
        ("train-2", LONG, " It serves Aarhus.", (), True),
    ]
    assert re.search(r"train: texts left out .*: 2 'toFix'; entries .*: 1", caplog.text)
    assert "train: 3 rows; the official train split has 6940" in caplog.text


def test_equal_triples_are_scored_once(webnlg_folder):
    assert [(e.id, e.text, e.references, e.group) for e in read("validation", webnlg_folder)] == [
        ("validation-0", LEADER, ("He leads Aarhus.", "Aarhus is led by him."), ""),
        ("validation-1", LONG, ("It is 2776 m & serves Aarhus.",), ""),
        ("validation-3", "D : b : C", ("D b C.",), ""),
    ]
    assert WebNLG().rows_of("validation", Data(path=str(webnlg_folder))) == [
        "validation-0",
        "validation-1",
        "",
        "validation-3",
        "validation-0",
    ]


def test_the_test_set_is_the_file_with_texts_and_has_groups(webnlg_folder):
    assert [(e.id, e.text, e.references, e.group) for e in read("test", webnlg_folder)] == [
        ("test-0", LEADER, ("B. leads it.", "It is led."), "seen"),
        ("test-1", "Ann : artist : yes", ("Ann is one.",), "unseen"),
        ("test-2", "Ann : athlete : no", ("Ann is none.",), "unseen"),
    ]


def test_a_test_folder_without_the_whole_file(webnlg_folder, caplog):
    (webnlg_folder / "test" / "testdata_with_lex.xml").unlink()
    assert [e.id for e in read("test", webnlg_folder)] == ["test-0"]
    assert "test: 1 rows; the official test split has 1862" in caplog.text
    (webnlg_folder / "test" / "testdata_unseen_with_lex.xml").unlink()
    with pytest.raises(
        DataError, match=r"test: no .xml file with texts in it; .* is testdata_with_lex.xml"
    ):
        read("test", webnlg_folder)


def test_the_folder_around_it(webnlg_folder):
    assert read("test", webnlg_folder.parent) == read("test", webnlg_folder)
    (webnlg_folder.parent / "webnlg_2017").mkdir()
    webnlg_folder.rename(webnlg_folder.parent / "webnlg_2017" / webnlg_folder.name)
    assert (
        len(read("test", webnlg_folder.parent))
        == len(read("test", webnlg_folder.parent / "webnlg_2017"))
        == 3
    )
    with pytest.raises(
        DataError, match=r"no folder .*The folders of .xml files: https://gitlab.com"
    ):
        read("test", webnlg_folder)


def json_entry(number: int, **changes) -> dict:
    entry = {
        "category": "Airport",
        "lexicalisations": [
            {"comment": "good", "lang": "", "lex": "A b C.", "xml_id": "Id1"},
            {"comment": "toFix", "lang": "", "lex": "A b.", "xml_id": "Id2"},
        ],
        "modifiedtripleset": [{"object": "C", "property": "b", "subject": "A"}],
        "size": "1",
    }
    return {str(number): {**entry, **changes}}


def test_the_reference_codes_json(write, tmp_path):
    other = [{"object": "D", "property": "b", "subject": "A"}]
    text = json.dumps(
        {
            "entries": [
                json_entry(1),
                json_entry(2, category="Artist", modifiedtripleset=other * 2),
                json_entry(3),
            ]
        }
    )
    for name in ("train", "dev", "test"):
        write(f"{name}.json", text)
    assert [(e.text, e.target) for e in read("train", tmp_path)] == [
        ("A : b : C", " A b C."),
        ("A : b : D | A : b : D", " A b C."),
        ("A : b : C", " A b C."),
    ]
    assert [(e.id, e.references, e.group) for e in read("test", tmp_path)] == [
        ("test-0", ("A b C.", "A b C."), "seen"),
        ("test-1", ("A b C.",), "unseen"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'category="Airport"',
            'category="Airprot"',
            r"a.xml:4: category 'Airprot' .*mean 'Airport'",
        ),
        ("He leads Aarhus.", " ", r"a.xml:7: an empty text"),
        (
            '<lex comment="good" lid="Id1">He leads Aarhus.</lex>',
            "",
            r"a.xml:4: an entry without a text \(lex\)",
        ),
        (
            "<mtriple>Aarhus | leaderName | Jacob_B.</mtriple>",
            "",
            r"a.xml:4: an entry without triples",
        ),
        (
            "Aarhus | leaderName | Jacob_B.",
            "Aarhus | Jacob_B.",
            r"a.xml:6: 'Aarhus \| Jacob_B.' is not SUBJECT",
        ),
        (
            "Aarhus | leaderName | Jacob_B.",
            "Aarhus |  | Jacob_B.",
            r"a.xml:6: .* is not SUBJECT \| PROPERTY",
        ),
        (
            "originaltripleset",
            "modifiedtripleset",
            r"a.xml:4: an entry with 2 modifiedtripleset; it has one",
        ),
        ("benchmark", "corpus", r"a.xml:2: <corpus>; .*<benchmark>"),
        ("</entry>", "", r"a.xml:\d+: not XML: mismatched tag"),
    ],
)
def test_wrong_xml(webnlg_folder, old, new, message):
    path = webnlg_folder / "dev" / "1triples" / "a.xml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        read("validation", webnlg_folder)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"dev.json: Input should be a valid dictionary"),
        (
            {"entries": [json_entry(1)["1"]]},
            r"dev.json: entries\[0\].category: Input should be a valid dictionary",
        ),
        (
            {"entries": [{"1": {"category": "Food"}}]},
            r"dev.json: entries\[0\].1.modifiedtripleset: Field required",
        ),
        ({"entries": [json_entry(1, category="Film")]}, r"dev.json: entry 1: category 'Film'"),
        (
            {"entries": [json_entry(1), json_entry(2, lexicalisations=[])]},
            r"dev.json: entry 2: an entry without a text",
        ),
        (
            {"entries": [json_entry(1, modifiedtripleset=[])]},
            r"dev.json: entry 1: an entry without triples",
        ),
        (
            {
                "entries": [
                    json_entry(
                        1,
                        lexicalisations=[
                            {"comment": "good", "lex": "a"},
                            {"comment": "good", "lex": ""},
                        ],
                    )
                ]
            },
            r"dev.json: entry 1, text 2: an empty text",
        ),
    ],
)
def test_wrong_json(write, tmp_path, value, message):
    write("dev.json", json.dumps(value))
    with pytest.raises(DataError, match=message):
        read("validation", tmp_path)


def hub_row(
    category: str, triples: list[str], texts: list[str], test_category: str = "", **lex
) -> dict:
    comments = ["toFix" if text == "bad" else "good" for text in texts]
    return {
        "category": category,
        "size": len(triples),
        "eid": "Id1",
        "original_triple_sets": {"otriple_set": [triples, triples]},
        "modified_triple_sets": {"mtriple_set": [triples]},
        "shape": "",
        "lex": {
            "comment": comments,
            "lid": ["Id1"] * len(texts),
            "text": texts,
            "lang": [""] * len(texts),
            **lex,
        },
        "test_category": test_category,
    }


def from_disk(monkeypatch, folder: Path, split: str, rows: list[dict]) -> list:
    """The hub's Parquet branch is a folder here."""
    import datasets

    asked = []
    load = datasets.load_dataset
    file = folder / "webnlg_challenge_2017" / split / "0000.parquet"
    file.parent.mkdir(parents=True)
    datasets.Dataset.from_list(rows).to_parquet(str(file))

    def load_here(name, revision, **kwargs):
        asked.append((name, revision, kwargs))
        return load(str(folder), cache_dir=str(folder / "cache"), **kwargs)

    monkeypatch.setattr(datasets, "load_dataset", load_here)
    return asked


def test_the_hub(monkeypatch, tmp_path):
    rows = [
        hub_row("Food", ["A | b | C", "A | d | E"], ["x", "bad", "y"]),
        hub_row("City", ["A | b | C"], ["bad"]),
    ]
    asked = from_disk(monkeypatch, tmp_path, "dev", rows)
    assert [(e.id, e.text, e.references) for e in WebNLG().read("validation", Data())] == [
        ("validation-0", "A : b : C | A : d : E", ("x", "y"))
    ]
    files = {
        "data_files": {"validation": "webnlg_challenge_2017/dev/*.parquet"},
        "split": "validation",
    }
    assert asked == [("webnlg-challenge/web_nlg", "refs/convert/parquet", files)]


def test_the_hubs_test_split_is_three_files_and_one_is_read(monkeypatch, tmp_path, caplog):
    rows = [
        hub_row("Food", ["A | b | C"], ["", ""], "testdata_no_lex"),
        hub_row("Food", ["A | b | C"], ["x"], "testdata_with_lex"),
        hub_row("Artist", ["A | b | D"], ["y"], "testdata_with_lex"),
        hub_row("Artist", ["A | b | D"], ["y"], "testdata_unseen_with_lex"),
    ]
    from_disk(monkeypatch, tmp_path, "test", rows)
    examples = WebNLG().read("test", Data())
    assert [(e.id, e.references, e.group) for e in examples] == [
        ("test-0", ("x",), "seen"),
        ("test-1", ("y",), "unseen"),
    ]
    assert "webnlg-challenge/web_nlg, test: 2 rows; the official test split has 1862" in caplog.text


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (hub_row("Food", ["A | b"], ["x"]), r"web_nlg, train row 0: 'A \| b' is not SUBJECT"),
        (
            hub_row("Food", ["A | b | C"], ["x"], comment=["good", "good"]),
            r"train row 0: 2 comments for 1 texts",
        ),
        (
            {"category": "Food", "lex": {"text": ["x"]}},
            r"train row 0: modified_triple_sets: Field required",
        ),
    ],
)
def test_wrong_hub_rows(monkeypatch, tmp_path, row, message):
    from_disk(monkeypatch, tmp_path, "train", [row])
    with pytest.raises(DataError, match=message):
        WebNLG().read("train", Data())


@real
def test_official_counts(caplog):
    folder = Path(str(ROOT)) / "webnlg_2017"
    with caplog.at_level(logging.INFO):
        found = {split: WebNLG().read(split, Data(path=str(folder))) for split in WebNLG.sizes}
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    assert {split: len(examples) for split, examples in found.items()} == WebNLG().expected_rows()
    assert re.search(r"train: texts left out .*: 77 'toFix'; entries .*: 5", caplog.text)
    assert re.search(r"dev: texts left out .*: 10 'toFix'; entries .*: 1", caplog.text)
    assert [e.group for e in found["test"]] == ["seen"] * 971 + ["unseen"] * 891
    assert [sum(len(e.references) for e in found[split]) for split in ("validation", "test")] == [
        2258,
        4928,
    ]
    assert len(found["train"]) + 77 == 18102
    assert WebNLG().rows_of("test", Data(path=str(folder))) == [f"test-{i}" for i in range(1862)]


@real
def test_ten_categories_are_seen():
    folder = Path(str(ROOT)) / "webnlg_2017" / "webnlg_challenge_2017"

    def categories(split: str) -> Counter[str]:
        from lorakit.tasks._webnlg import xml_entries

        return Counter(entry.category for entry in xml_entries(folder / split))

    assert set(categories("train")) == set(categories("dev")) == set(SEEN)
    assert set(categories("test")) == {*SEEN, *UNSEEN}


@real
@pytest.mark.parametrize("split", ["validation", "test"])
def test_xml_and_the_reference_codes_json_hold_the_same(split):
    folder = Path(str(ROOT)) / "webnlg_2017"
    xml, codes = (
        WebNLG().read(split, Data(path=str(path))) for path in (folder, folder / "lora_json")
    )
    assert len(xml) == len(codes)
    for ours, theirs in zip(xml, codes, strict=True):
        assert ours == theirs
