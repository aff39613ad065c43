"""A table of the paper from runs and results, with a stand-in for `lorakit train`."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from collections.abc import Sequence
from pathlib import Path

import pytest

import lorakit
from lorakit.recipe.load import load_recipe
from lorakit.runs.folder import folder_of
from lorakit.runs.result import Counts, Result, SeedResult
from lorakit.runs.seeds import find_adapter
from lorakit.studies.paper_plan import Reproduction, Selection, load_reproduction
from lorakit.studies.paper_table import load_paper_table
from lorakit.studies.result import StudyResult
from lorakit.studies.run import task_of

TABLE = """\
about: Mine
statistic: median
seeds: 3
runs:
  a: {recipe: quickstart}
  b: {recipe: quickstart, set: {train.max_steps: 7}}
columns:
  a: {title: A, metric: validation/accuracy}
  b: {title: B, metric: validation/accuracy, spread: 1}
  b100: {title: B share, run: b, metric: validation/accuracy, scale: 0.01}
  avg: {title: Avg., average: true}
  loss: {title: Loss}
rows:
  lora:
    label: LoRA
    params: 1.2k
    method: lora
    values: [2.4±.5, 9.0, 0.09, 5.5, null]
    set: {train.learning_rate: 1}
  ft:
    label: FT
    params: 2k
    method: full
    copied: true
    values: [9.0, 9.5, 0.01, 3.0, 1.1]
    sets: {a: {train.learning_rate: 8}, b: {train.learning_rate: 8}}
    trainable: 7
    misfit: a misprint
"""
BASE = "about: a small one for a big one\nfolder: ''\nmethods: {full: {train.learning_rate: 4}}\n"


def load_table(
    name: str,
    base: str | None = None,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    **more,
) -> Reproduction:
    """The reproduction of a table, with the fields of `Selection` as arguments."""
    return load_reproduction(name, Selection(base, rows, columns, **more))


@pytest.fixture
def folder(tmp_path, monkeypatch, stand_in) -> Path:
    """With a table `mine` and a base `small`; runs go to runs/."""
    (tmp_path / "tables" / "bases").mkdir(parents=True)
    (tmp_path / "tables" / "mine.yaml").write_text(TABLE)
    (tmp_path / "tables" / "bases" / "small.yaml").write_text(BASE)
    monkeypatch.setattr("lorakit.studies.paper_table.shipped", lambda kind: tmp_path)
    monkeypatch.chdir(tmp_path)
    load_paper_table.cache_clear()
    yield tmp_path
    load_paper_table.cache_clear()


def result(cell_overrides: list[str], seeds: list[int], **changes) -> Result:
    """As a run of the quickstart would have left it."""
    loaded = load_recipe("quickstart", cell_overrides)
    found = [
        SeedResult(
            seed=s,
            scores={"validation": {"accuracy": 50.0 + s}},
            base_scores={},
            epochs=1,
            steps=1,
            seconds={},
        )
        for s in seeds
    ]
    values: dict = {
        "recipe": "quickstart",
        "task": "t",
        "model": "m",
        "method": {"name": "lora"},
        "primary": "accuracy",
        "splits": ("validation",),
        "counts": Counts(sites=1, trainable=777, fresh=0, total=9),
        "seeds": tuple(found),
        "recipe_values": loaded.recipe.plain(),
        "started": "",
        "finished": "",
    }
    return Result(**(values | changes))


class TestTheTable:
    def test_ours_stands_beside_the_papers(self, folder, lorakit_cli):
        done = lorakit_cli("reproduce", "mine", "--jobs", 3, "--format", "csv")
        assert done.code == 0, done.err
        rows = list(csv.reader(io.StringIO(done.out)))
        assert rows == [
            ["row", "numbers", "parameters", "A", "B", "B share", "Avg.", "Loss"],
            ["LoRA", "paper", "1.2k", "2.4 ± 0.5", "9.0 ± 1.0", "0.09", "5.5", "not printed"],
            [
                "LoRA",
                "ours",
                "1,234",
                "2.00 ± 1.00 (3)",
                "2.00 ± 1.00 (3)",
                "0.02 ± 0.01 (3)",
                "1.34 (3)",
                "missing: not measured",
            ],
            [
                "LoRA",
                "difference",
                "–",
                "-0.40 inside",
                "-7.00 outside",
                "-0.07 no spread printed",
                "-4.16 no spread printed",
                "missing",
            ],
            ["FT*", "paper", "2k", "9.0", "9.5 ± 1.0", "0.01", "3.0", "1.1"],
            [
                "FT*",
                "ours",
                "1,234",
                "9.00 ± 1.00 (3)",
                "9.00 ± 1.00 (3)",
                "0.09 ± 0.01 (3)",
                "6.03 (3)",
                "missing: not measured",
            ],
            [
                "FT*",
                "difference",
                "–",
                "+0.00 no spread printed",
                "-0.50 inside",
                "+0.08 no spread printed",
                "+3.03 no spread printed",
                "missing",
            ],
        ]
        assert "note: FT 2k: a misprint" in done.err
        assert "4 done" in done.err

    def test_a_second_time_nothing_is_run(self, folder, lorakit_cli):
        assert (
            lorakit_cli("reproduce", "mine", "--rows", "lora", "--columns", "a", "--jobs", 2).code
            == 0
        )
        logs = {path: path.stat().st_mtime_ns for path in folder.glob("runs/mine/cells/*.log")}
        assert len(logs) == 1
        again = lorakit_cli("reproduce", "mine", "--rows", "lora", "--columns", "a", "--json").json
        assert {
            path: path.stat().st_mtime_ns for path in folder.glob("runs/mine/cells/*.log")
        } == logs
        [line] = again["lines"]
        assert line["trainable"] == [1234]
        assert line["entries"]["a"]["ours"] == 2.0
        assert line["entries"]["a"]["inside"] is True
        assert line["entries"]["a"]["state"] == "done"
        assert again["comparable"] is True

    @pytest.mark.parametrize("form", ["plain", "md", "csv", "latex", "html"])
    def test_nothing_is_started_and_nothing_is_blank(self, folder, lorakit_cli, form):
        done = lorakit_cli("reproduce", "mine", "--status", "--format", form)
        assert done.code == 0
        assert not (folder / "runs").exists()
        assert done.out.count("missing") >= 2 * 5 + 2
        if form == "csv":
            rows = list(csv.reader(io.StringIO(done.out)))
            assert all(all(row) for row in rows)
            assert rows[2] == [
                "LoRA",
                "ours",
                "missing",
                "missing",
                "missing",
                "missing",
                "missing",
                "missing: not measured",
            ]
        if form == "html":
            xml.etree.ElementTree.fromstring(done.out)

    def test_what_fails_is_missing_and_says_so(self, folder, lorakit_cli):
        done = lorakit_cli(
            "reproduce", "mine", "--rows", "lora", "--columns", "a,loss", "train.max_steps=13"
        )
        assert done.code == 1
        assert "missing: failed" in done.out
        assert "it cannot be done (log: " in done.err

    def test_an_average_of_some_columns_is_none(self, folder, lorakit_cli):
        done = lorakit_cli("reproduce", "mine", "--rows", "lora", "--columns", "a,avg", "--json")
        assert done.json["lines"][0]["entries"]["avg"]["ours"] is None
        assert done.json["lines"][0]["entries"]["avg"]["state"] == "not all columns"

    def test_seeds(self, folder, lorakit_cli):
        done = lorakit_cli("reproduce", "mine", "--rows", "lora", "--columns", "a", "--seeds", 2)
        assert "1.50 ± 0.71 (2)" in done.out
        more = lorakit_cli(
            "reproduce", "mine", "--rows", "lora", "--columns", "a", "--seeds", 3, "--status"
        )
        assert "1.50 ± 0.71 (2 of 3)" in more.out


class TestWhatIsNotCompared:
    def test_a_slice(self, folder, lorakit_cli):
        done = lorakit_cli("reproduce", "mine", "--rows", "lora", "--columns", "a", "--limit", 5)
        assert "ours, a slice" in done.out
        assert "a slice, at most 5 examples of each split: nothing is compared" in done.out
        assert "inside" not in done.out
        [run] = folder.glob(f"runs/quickstart-{'?' * 16}")
        assert load_recipe(str(run)).recipe.data.limit == {"train": 5, "validation": 5}

    def test_another_base(self, folder, lorakit_cli):
        done = lorakit_cli(
            "reproduce", "mine", "--base", "small", "--columns", "a", "--seeds", 1, "--jobs", 2
        )
        assert done.code == 0
        assert "another base, a small one for a big one: nothing is compared" in done.out
        assert done.out.count("ours, another base") == 2
        assert "inside" not in done.out
        assert "4.00 (1)" in done.out  # the base's rate, not the table's
        assert "a misprint" not in done.err
        assert (folder / "runs" / "mine-small" / "study.json").is_file()
        found = lorakit_cli(
            "reproduce", "mine", "--base", "small", "--columns", "a", "--status", "--json"
        ).json
        assert {e["difference"] for line in found["lines"] for e in line["entries"].values()} == {
            None
        }


class TestWhatIsTaken:
    LORA = ("train.learning_rate=1",)

    def take(self, folder, lorakit_cli, *more, overrides=()):
        done = lorakit_cli(
            "reproduce",
            "mine",
            "--rows",
            "lora",
            "--columns",
            "a",
            "--results",
            "kept",
            *more,
            *overrides,
        )
        assert done.code == 0, done.err
        [line] = done.json["lines"]
        return line["entries"]["a"], line["trainable"]

    def test_a_whole_result_is_not_run_again(self, folder, lorakit_cli):
        (folder / "kept" / "deep").mkdir(parents=True)
        result([*self.LORA], [0, 1, 2, 3]).write(folder / "kept" / "deep" / "mine.json")
        (folder / "kept" / "else.json").write_text("{}")
        entry, trainable = self.take(folder, lorakit_cli, "--json")
        assert (entry["ours"], entry["seeds"], entry["state"]) == (51.0, 3, "taken")
        assert entry["sources"] == ["kept/deep/mine.json"]
        assert trainable == [777]
        assert not (folder / "runs").exists()

    def test_the_name_of_its_recipe_does_not_matter(self, folder, lorakit_cli):
        (folder / "kept").mkdir()
        result([*self.LORA], [0, 1, 2], recipe="a name of before").write(folder / "kept" / "a.json")
        entry, _ = self.take(folder, lorakit_cli, "--status", "--json")
        assert (entry["ours"], entry["state"]) == (51.0, "taken")

    def test_only_the_seeds_that_it_lacks_are_run(self, folder, lorakit_cli):
        (folder / "kept").mkdir()
        result([*self.LORA], [0]).write(folder / "kept" / "zero.json")
        result([*self.LORA], [2]).write(folder / "kept" / "two.json")
        entry, _ = self.take(folder, lorakit_cli, "--json")
        [run] = folder.glob(f"runs/quickstart-{'?' * 16}")
        assert [path.name for path in run.glob("seed*")] == ["seed1"]
        assert entry["ours"] == 50.0  # of 50, 2 and 52
        assert entry["seeds"] == 3
        assert sorted(entry["sources"]) == ["kept/two.json", "kept/zero.json", f"runs/{run.name}"]

    def test_a_run_comes_before_a_file(self, folder, lorakit_cli):
        (folder / "kept").mkdir()
        before, _ = self.take(folder, lorakit_cli, "--json")
        result([*self.LORA], [0]).write(folder / "kept" / "zero.json")
        after, _ = self.take(folder, lorakit_cli, "--json")
        assert before["ours"] == after["ours"] < 50
        assert before["seeds"] == after["seeds"] == 3

    @pytest.mark.parametrize(
        "other",
        [
            {"recipe_values": load_recipe("quickstart", ["train.learning_rate=2"]).recipe.plain()},
            {
                "recipe_values": load_recipe(
                    "quickstart", [*LORA, "train.max_steps=3"]
                ).recipe.plain()
            },
            {
                "recipe_values": load_recipe(
                    "quickstart", [*LORA, "model.name=elsewhere"]
                ).recipe.plain()
            },
            {"recipe_values": {"unknown": 1}},
        ],
        ids=["rate", "steps", "base", "damaged"],
    )
    def test_another_setting_is_not_taken(self, folder, lorakit_cli, other):
        (folder / "kept").mkdir()
        result([*self.LORA], [0, 1, 2], **other).write(folder / "kept" / "mine.json")
        assert self.take(folder, lorakit_cli, "--status", "--json")[0]["state"] == "waiting"

    def test_where_the_data_lay_and_what_the_keys_were_called_does_not_matter(
        self, folder, lorakit_cli
    ):
        (folder / "kept").mkdir()
        made = result([*self.LORA, "data.path=THERE"], [0, 1, 2])
        values = json.loads(json.dumps(made.recipe_values))
        values["evaluate"]["max_new_tokens"] = 64  # until `decode` had it
        values.pop("decode")
        made.model_copy(update={"recipe_values": values}).write(folder / "kept" / "mine.json")
        assert self.take(folder, lorakit_cli, "--status", "--json")[0]["state"] == "taken"

    @pytest.mark.parametrize(("total", "state"), [(1, "waiting"), (None, "taken")])
    def test_a_folder_is_the_base_where_it_has_as_many_parameters(
        self, folder, lorakit_cli, total, state
    ):
        from lorakit.bases.outline import outline

        recipe = load_recipe("quickstart").recipe
        model = outline(recipe.model, recipe.task.head.value, recipe.task.labels).model
        size = total or sum(p.numel() for p in model.parameters())
        (folder / "kept").mkdir()
        (folder / "base").symlink_to(Path(lorakit.__file__).parent / "assets" / "tiny_encoder")
        counts = Counts(sites=1, trainable=777, fresh=0, total=size)
        result([*self.LORA], [0, 1, 2], counts=counts).write(folder / "kept" / "mine.json")
        entry, _ = self.take(
            folder, lorakit_cli, "--status", "--json", overrides=["model.name=base"]
        )
        assert entry["state"] == state


def test_what_starts_from_another_run_waits_for_it(folder, lorakit_cli):
    later = TABLE.replace(
        "set: {train.max_steps: 7}", "set: {train.max_steps: 7, start_from: quickstart}"
    )
    (folder / "tables" / "mine.yaml").write_text(later)
    alone = lorakit_cli("reproduce", "mine", "--rows", "lora", "--columns", "b", "--seeds", 1)
    assert "LoRA 1.2k, b waits: start_from: 'quickstart'" in alone.err
    assert not list(folder.glob("runs/quickstart-*"))
    assert alone.code == 1
    both = lorakit_cli("reproduce", "mine", "--columns", "b,a", "--seeds", 1, "--jobs", 4)
    assert both.code == 0, both.err
    assert "missing" not in both.out
    assert both.err.index("done  FT 2k, a") < both.err.index("running  LoRA 1.2k, b")
    assert "waits" not in both.err
    study = StudyResult.read(folder / "runs" / "mine" / "study.json")
    assert study.counts() == {"done": 4}
    page = (folder / "runs" / "mine" / "report.html").read_text()
    assert all(cell.label in page for cell in study.cells)


def test_it_starts_from_a_run_of_its_own_method(folder, lorakit_cli):
    lorakit_cli("reproduce", "mine", "--columns", "a", "--seeds", 1)
    cells = load_table("mine", columns=["a"], seeds=1).cells
    runs = {row: folder_of(cells[row, "a"].loaded, Path("runs")) for row in ("lora", "ft")}
    os.utime(runs["lora"] / "result.json", (1, 1))
    for row, run in runs.items():
        recipe = cells[row, "a"].loaded.recipe
        assert find_adapter("quickstart", Path("runs"), recipe) == run / "seed0" / "adapter"


class TestStopping:
    @pytest.mark.slow
    def test_it_goes_on_where_it_was_stopped(self, folder, stand_in, lorakit_cli):
        code = (
            "import sys, lorakit.studies.run as s, lorakit.studies.paper_table as p, lorakit.cli, "
            "pathlib\n"
            f"s.PROGRAM = (sys.executable, {str(stand_in)!r})\n"
            f"p.shipped = lambda kind: pathlib.Path({str(folder)!r})\n"
            "sys.argv = 'lorakit reproduce mine --rows lora --columns a,b --seeds 1 "
            "train.max_steps=99'.split()\n"
            "lorakit.cli.main()\n"
        )
        (folder / "tables" / "mine.yaml").write_text(
            TABLE.replace(" set: {train.max_steps: 7}", " set: {train.epochs: 7}")
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        try:
            until = time.monotonic() + 120
            while not list(folder.glob("runs/*/begun")):
                assert time.monotonic() < until
                assert process.poll() is None, process.communicate()[1].decode()
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=60)[1].decode()
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 130, said
        assert said.rstrip().splitlines()[-1].startswith("stopped; ")
        options = ("--rows", "lora", "--columns", "a,b", "--seeds", 1, "train.max_steps=99")
        now = lorakit_cli("reproduce", "mine", *options, "--status")
        assert "missing: stopped" in now.out
        begun = next(folder.glob("runs/*/begun")).parent
        for cell in load_table(
            "mine", rows=["lora"], columns=["a", "b"], seeds=1, overrides=["train.max_steps=99"]
        ).plan.cells:
            run = folder_of(cell.loaded, folder / "runs")
            run.mkdir(exist_ok=True)
            (run / "checkpoint").touch()  # lets the other end too
        done = lorakit_cli("reproduce", "mine", *options)
        assert done.code == 0, done.err
        assert "missing" not in done.out
        study = json.loads((folder / "runs" / "mine" / "study.json").read_text())
        assert {
            cell["attempts"] for cell in study["cells"] if cell["run"].endswith(begun.name)
        } == {2}

    def test_a_run_by_hand_counts(self, folder, lorakit_cli):
        plan = load_table("mine", rows=["lora"], columns=["a"], seeds=1).plan
        subprocess.run(task_of(plan.cells[0], plan, Path("runs")).command, check=True, timeout=60)
        done = lorakit_cli(
            "reproduce", "mine", "--rows", "lora", "--columns", "a", "--seeds", 1, "--status"
        )
        assert "1.00 (1)" in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mnie"], "error: no table 'mnie'; did you mean 'mine'"),
        (["mine", "--columns", "aa"], "error: no column 'aa'"),
        (["mine", "--rows", "lroa"], "error: no row 'lroa'; did you mean 'lora'?"),
        (["mine", "--base", "smal"], "error: no base 'smal'; did you mean 'small'?"),
        (["mine", "--seeds", "0"], "Invalid value for '--seeds'"),
        (["mine", "--launcher", "slrum"], "no launcher is named 'slrum'"),
        (["mine", "method.rr=4"], "method.rr: unknown key"),
    ],
)
def test_wrong_names(folder, lorakit_cli, arguments, said):
    done = lorakit_cli("reproduce", *arguments)
    assert done.code == 2
    assert said in done.err
