"""The zip for the GLUE server, from files of predictions."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest

from lorakit.errors import InputError
from lorakit.tasks.glue import Glue
from lorakit.verbs.submission import FREQUENT, HEADER, ROWS, submission


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """A file for each task but WNLI and AX, of three rows."""
    for name in ROWS:
        monkeypatch.setitem(ROWS, name, 3)
        if name not in FREQUENT:
            write(tmp_path / "runs" / name.partition(".")[0] / name, 3)
    return tmp_path / "runs"


def write(path: Path, rows: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([HEADER, *(f"{i}\t1" for i in range(rows)), ""]))


def test_all_files_are_in_the_zip(runs, tmp_path, lorakit_cli):
    done = lorakit_cli("submission", runs, "--to", tmp_path / "glue.zip", "--json")
    assert done.code == 0, done.err
    with ZipFile(tmp_path / "glue.zip") as archive:
        assert archive.namelist() == list(ROWS)
        assert archive.read("AX.tsv").decode().splitlines()[1:] == [
            f"{i}\tentailment" for i in range(3)
        ]
        assert archive.read("QQP.tsv") == (runs / "QQP" / "QQP.tsv").read_bytes()
    assert done.json["filled"] == FREQUENT
    assert "WNLI.tsv: not predicted; every row is the most frequent answer, 0" in done.err


def test_the_same_predictions_give_the_same_bytes(runs, tmp_path):
    submission([runs], tmp_path / "a.zip")
    submission([runs], tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_what_is_refused(runs, tmp_path):
    out = tmp_path / "x.zip"
    (runs / "CoLA" / "CoLA.tsv").rename(tmp_path / "CoLA.tsv")
    with pytest.raises(InputError, match=r"^no CoLA.tsv in .*lorakit eval RUN --split test"):
        submission([runs], out)
    with pytest.raises(InputError, match="nowhere does not exist"):
        submission([tmp_path / "nowhere"], out)
    write(runs / "a" / "CoLA.tsv", 3)
    with pytest.raises(InputError, match=r"CoLA.tsv is there twice"):
        submission([runs, tmp_path / "CoLA.tsv"], out)
    for rows in (2, 0):
        write(runs / "a" / "CoLA.tsv", rows)
        with pytest.raises(InputError, match=r"CoLA.tsv: not 3 rows"):
            submission([runs], out)
    (runs / "a" / "CoLA.tsv").write_text("")
    with pytest.raises(InputError, match=r"CoLA.tsv: not 3 rows"):
        submission([runs], out)
    (runs / "a" / "CoLA.tsv").write_text(f"{HEADER}\n0\t1\n2\t1\n1\t1\n")
    with pytest.raises(InputError, match=r"CoLA.tsv: "):
        submission([runs], out)
    assert not out.exists()
    out.touch()
    with pytest.raises(InputError, match="exists; give a new name"):
        submission([runs], out)


def test_the_rows_are_those_of_the_tasks():
    for name in ("cola", "sst2", "mrpc", "stsb", "mnli", "qnli", "qqp", "rte"):
        task = Glue(name=f"glue/{name}")
        for split in task.test_splits:
            suffix = {"test_matched": "-m", "test_mismatched": "-mm"}.get(split, "")
            assert ROWS[f"{task.variant.folder}{suffix}.tsv"] == task.expected_rows()[split]
