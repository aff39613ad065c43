from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from lorakit.errors import DataError, DataUnavailable
from lorakit.recipe.load import load_recipe
from lorakit.runs.identity import digest_of
from lorakit.tasks import Data
from lorakit.tasks.e2e import E2E, context_of

ROOT = os.environ.get("LORAKIT_DATA")
real = pytest.mark.skipif(ROOT is None, reason="LORAKIT_DATA (a folder with e2e_nlg) is not set")
CHEAP = "name : Aromi | Type : pub | price : less than £ 20 | family friendly : yes"
DEAR = CHEAP.replace("less than £ 20", "more than £ 30")


TOKENISED = E2E(text_form="tokenised")


def read(split: str, folder, task: E2E = E2E()):  # noqa: B008
    return task.read(split, Data(path=str(folder)))


@pytest.mark.parametrize(
    ("mr", "context"),
    [
        (
            "name[Aromi], eatType[pub], food[Fast food], priceRange[£20-25], "
            "customer rating[1 out of 5], "
            "area[riverside], familyFriendly[no], near[Café Rouge]",
            "name : Aromi | Type : pub | food : Fast food | price : £ 20 - 25 | "
            "customer rating : 1 out of 5 | "
            "area : riverside | family friendly : no | near : Café Rouge",
        ),
        ("name[Cotto], priceRange[high]", "name : Cotto | price : high"),
    ],
)
def test_contexts(mr, context):
    assert context_of(mr, "f:1") == context


@pytest.mark.parametrize(
    "mr",
    [
        "",
        "Aromi",
        "name[Aromi",
        "name[Aromi] eatType[pub]",
        "name[Aromi],eatType[pub]",
        "name[]",
        "name[a], ",
    ],
)
def test_a_malformed_meaning_representation(mr):
    with pytest.raises(DataError, match=r"^f:1: .*name\[Aromi\], eatType"):
        context_of(mr, "f:1")


def test_an_unknown_slot():
    with pytest.raises(
        DataError, match=r"^f:1: .*'eattype'; did you mean 'eatType'\? \(slots: name"
    ):
        context_of("name[Aromi], eattype[pub]", "f:1")


def test_every_row_is_learnt(e2e_folder, caplog):
    with caplog.at_level(logging.INFO):
        examples = read("train", e2e_folder)
    assert [(e.id, e.text, e.target, e.references) for e in examples] == [
        ("train-0", CHEAP, " Aromi is a cheap pub.", ()),
        ("train-1", DEAR, " A dear pub: Aromi.", ()),
        ("train-2", CHEAP, " A pub for all. It is cheap.", ()),
    ]
    assert all(example.eos for example in examples)
    assert "trainset.csv: text as it was written" in caplog.text
    assert "trainset.csv: 1 texts have line breaks" in caplog.text
    assert "trainset.csv: 3 rows; the official train split has 42061" in caplog.text


def test_each_context_is_scored_once_with_all_texts_in_order(e2e_folder):
    assert [
        (e.id, e.text, e.target, e.references, e.group, e.eos)
        for e in read("validation", e2e_folder)
    ] == [
        (
            "validation-0",
            CHEAP,
            " It is cheap.",
            ("It is cheap.", "So cheap.", "It is cheap."),
            "",
            True,
        ),
        ("validation-2", DEAR, " It is dear.", ("It is dear.",), "", True),
        (
            "validation-3",
            "name : Clowns | area : riverside",
            " A river runs by.",
            ("A river runs by.",),
            "",
            True,
        ),
    ]
    assert [e.references for e in read("test", e2e_folder)][1:] == [
        ('Near "Avalon".',),
        ("It is French.",),
    ]


def test_rows_name_their_examples(e2e_folder):
    ids = ["validation-0", "validation-0", "validation-2", "validation-3", "validation-0"]
    assert E2E().rows_of("validation", Data(path=str(e2e_folder))) == ids
    limited = Data(path=str(e2e_folder), limit={"validation": 1})
    assert E2E().rows_of("validation", limited) == [
        id if id == "validation-0" else "" for id in ids
    ]


TEXT = f"{CHEAP}||It is cheap . \r\n{DEAR}||It is dear . \r\n{CHEAP}||So cheap . \r\n"


def test_the_reference_codes_text_files(write, tmp_path, caplog):
    for name in ("train", "valid", "test"):
        write(f"{name}.txt", TEXT)
    with caplog.at_level(logging.INFO):
        assert [(e.text, e.target) for e in read("train", tmp_path, TOKENISED)] == [
            (CHEAP, " It is cheap ."),
            (DEAR, " It is dear ."),
            (CHEAP, " So cheap ."),
        ]
    assert "train.txt: tokenised text" in caplog.text
    assert [e.references for e in read("validation", tmp_path, TOKENISED)] == [
        ("It is cheap .", "So cheap ."),
        ("It is dear .",),
    ]
    assert read("test", tmp_path, TOKENISED)[0].id == "test-0"


class TestTheForm:
    """Raw and tokenised text are never taken for each other."""

    def test_each_reads_its_own_files_of_a_folder_with_both(self, e2e_folder):
        (e2e_folder / "test.txt").write_text(TEXT)
        assert [e.text for e in read("test", e2e_folder, TOKENISED)] == [CHEAP, DEAR]
        assert len(read("test", e2e_folder)) == 3
        (e2e_folder / "testset_w_refs.csv").unlink()
        with pytest.raises(DataError, match=r"no testset_w_refs.csv for the test split. The .csv"):
            read("test", e2e_folder)

    @pytest.mark.parametrize(
        ("task", "other"), [(E2E(), "tokenised"), (TOKENISED, "raw")], ids=["raw", "tokenised"]
    )
    def test_a_folder_with_the_other_one_is_refused(self, task, other, write, tmp_path, e2e_folder):
        folder = e2e_folder
        if other == "tokenised":
            folder = tmp_path / "texts"
            folder.mkdir()
            (folder / "test.txt").write_text(TEXT)
        with pytest.raises(DataError, match=f"give task.text_form={other} to use it"):
            read("test", folder, task)

    def test_a_folder_with_both_is_not_said_to_have_the_other(self, e2e_folder):
        (e2e_folder / "test.txt").write_text("no separator\n")
        with pytest.raises(DataError) as caught:
            read("test", e2e_folder, TOKENISED)
        assert "task.text_form" not in str(caught.value)

    def test_the_hub_has_raw_text_only(self):
        with pytest.raises(DataUnavailable, match=r"task.text_form tokenised: the hub has tuets"):
            TOKENISED.read("test", Data())

    def test_it_is_in_the_identity_of_a_run_and_the_default_is_not(self):
        raw, plain, tokenised = (
            digest_of(load_recipe("smollm2/e2e", given).recipe)
            for given in (["task.text_form=raw"], [], ["task.text_form=tokenised"])
        )
        assert raw == plain != tokenised

    @pytest.mark.parametrize("name", ["e2e", "gpt2_large/e2e"])
    def test_the_papers_recipes_use_the_reference_codes_text(self, name):
        assert load_recipe(name).recipe.task.compared_on == "tokenised text"
        # scores that were published for one form are not shown next to those of the other
        assert not load_recipe(name, ["task.text_form=raw"]).recipe.expect.scores


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("trainset.csv", "mr,ref\nname[A],x\nname,y\n", r"trainset.csv:3: 'name' is"),
        (
            "trainset.csv",
            'mr,ref\nname[A],"x\ny"\nname[A], \n',
            r"trainset.csv:4: the context or the text is empty",
        ),
        ("trainset.csv", "mr,text\nname[A],x\n", r"trainset.csv:1: no column 'ref'"),
        (
            "train.txt",
            "a : b||c\na : b|c\n",
            r"train.txt:2: 'a : b\|c' has 0 of '\|\|'; a line is CONTEXT\|\|TEXT",
        ),
        ("train.txt", "a : b||c||d\n", r"train.txt:1: 'a : b\|\|c\|\|d' has 2 of '\|\|'"),
        ("train.txt", "a : b||c\n\na : b||d\n", r"train.txt:2: '' has 0 of '\|\|'"),
        ("train.txt", "a : b|| \n", r"train.txt:1: the context or the text is empty"),
        ("train.txt", "||c\n", r"train.txt:1: the context or the text is empty"),
        ("train.txt", b"a : b||\xff\n", r"train.txt:1: byte 0xff"),
    ],
)
def test_wrong_rows(write, tmp_path, name, content, message):
    write(name, content)
    task = TOKENISED if name.endswith(".txt") else E2E()
    with pytest.raises(DataError, match=message):
        read("train", tmp_path, task)


def test_the_hub(monkeypatch, tmp_path, caplog):
    import datasets

    asked = []
    load = datasets.load_dataset
    file = tmp_path / "default" / "validation" / "0000.parquet"
    file.parent.mkdir(parents=True)
    texts = ["A.", "B.", "C."]
    mrs = ["name[Aromi], eatType[pub]", "name[Aromi]", "name[Aromi], eatType[pub]"]
    datasets.Dataset.from_dict(
        {"meaning_representation": mrs, "human_reference": texts}
    ).to_parquet(str(file))

    def from_disk(name, revision, **kwargs):
        asked.append((name, revision, kwargs))
        return load(str(tmp_path), cache_dir=str(tmp_path / "cache"), **kwargs)

    monkeypatch.setattr(datasets, "load_dataset", from_disk)
    with caplog.at_level(logging.WARNING):
        examples = E2E().read("validation", Data())
    files = {"data_files": {"validation": "default/validation/*.parquet"}, "split": "validation"}
    assert asked == [("tuetschek/e2e_nlg", "refs/convert/parquet", files)]
    assert [(e.id, e.text, e.references) for e in examples] == [
        ("validation-0", "name : Aromi | Type : pub", ("A.", "C.")),
        ("validation-1", "name : Aromi", ("B.",)),
    ]
    assert (
        "tuetschek/e2e_nlg, validation: 3 rows; the official validation split has 4672"
        in caplog.text
    )
    E2E().read("validation", Data(revision="abc"))
    assert asked[1][1] == "abc"


@real
@pytest.mark.parametrize(
    ("split", "rows", "contexts"),
    [("train", 42061, 4862), ("validation", 4672, 547), ("test", 4693, 630)],
)
def test_official_counts(split, rows, contexts, caplog):
    task = E2E()
    with caplog.at_level(logging.WARNING):
        examples = task.read(split, Data(path=str(Path(str(ROOT)) / "e2e_nlg")))
    assert not caplog.records
    assert len(examples) == task.expected_rows()[split]
    assert len({example.text for example in examples}) == contexts
    assert (
        len(examples) if split == "train" else sum(len(example.references) for example in examples)
    ) == rows


@real
@pytest.mark.parametrize("split", ["validation", "test"])
def test_contexts_are_those_of_the_reference_code_in_every_row(split):
    folder = Path(str(ROOT)) / "e2e_nlg"
    data = [Data(path=str(path)) for path in (folder, folder / "lora_txt")]
    tasks = [E2E(), TOKENISED]
    ours, theirs = (task.official_rows(split, of)[1] for task, of in zip(tasks, data, strict=True))
    assert [row.context for row in ours] == [row.context for row in theirs]
    # the same characters apart from spaces
    squeezed = [
        ["".join(text.split()) for row in rows for text in row.texts] for rows in (ours, theirs)
    ]
    assert squeezed[0] == squeezed[1]
    assert tasks[0].rows_of(split, data[0]) == tasks[1].rows_of(split, data[1])


@real
def test_references_give_the_known_bleu_of_the_baseline():
    """TGen on the test set: 65.93, in the challenge's results."""
    import csv
    from itertools import zip_longest

    from sacrebleu.metrics.bleu import BLEU

    folder = Path(str(ROOT)) / "e2e_nlg"
    examples = E2E().read("test", Data(path=str(folder)))
    with (folder / "system_outputs" / "tgen.tsv").open(encoding="utf-8", newline="") as file:
        outputs = list(csv.DictReader(file, delimiter="\t"))
    assert [context_of(row["MR"], "") for row in outputs] == [example.text for example in examples]
    streams = [
        list(stream) for stream in zip_longest(*(example.references for example in examples))
    ]
    bleu = BLEU(lowercase=True, tokenize="13a").corpus_score(
        [row["output"] for row in outputs], streams
    )
    assert round(bleu.score, 2) == 65.93
