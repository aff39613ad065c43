"""Text that is not ours on the terminal: no markup is read, no escape byte goes out, and --json is
exact."""

from __future__ import annotations

import ast
import csv
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.table import Table

import lorakit.cli
from lorakit import events
from lorakit.cli.output import begin, give
from lorakit.cli.progress import Progress
from lorakit.cli.screen import Screen, line, styled
from lorakit.cli.visible import json_safe, visible
from lorakit.errors import RecipeError
from lorakit.recipe.load import load_recipe

ACTS = "\x1b[31m\x9b2J\x7f\x07\x08\r\u202e\u2066\u200f\u2028"
ODD = f"[qv] [/no] [bold]x[/bold] :smile: {ACTS}"
CODES = [0, 7, 8, 13, 27, 127, 133, 155, 0x61C, 0x200E, 0x2028, 0x202E, 0x2069, 0xD800, 0xDCFF]


def harmless(text: str) -> bool:
    return not any(char in text for char in ACTS if not char.isprintable())


@pytest.mark.parametrize("code", CODES, ids=hex)
def test_what_acts_is_made_visible(code):
    said = visible(f"a{chr(code)}b")
    assert said.isascii()
    assert said.isprintable()
    assert said[1] == "\\"


@pytest.mark.parametrize(
    "text", ["plain", "two\nlines\tof it", "é ü 中文 עברית العربية हिन्दी 👩‍🚀", "[qv] [/x] :smile:"]
)
def test_ordinary_text_stays(text):
    assert visible(text) == text


def _printed(*objects, **named) -> str:
    file = io.StringIO()
    Screen(file=file, width=200, force_terminal=False, **named).print(*objects)
    return file.getvalue()


def test_a_screen_reads_no_markup_anywhere():
    table = Table(title=f"title {ODD}")
    table.add_column(f"head {ODD}", footer=f"foot {ODD}")
    table.add_row(f"cell {ODD}")
    for said in (
        _printed(ODD),
        _printed(table),
        _printed(styled(ODD, "bold")),
        _printed(line((ODD, "red"), ODD)),
    ):
        assert harmless(said)
        assert said.count("[qv] [/no] [bold]x[/bold] :smile:") == said.count("smile")
        assert "\\x1b[31m" in said


@pytest.mark.parametrize("width", [1, 20, 59, 80])
def test_a_narrow_table_keeps_its_words(width):
    table = Table(box=None)
    for name in ("one", "two", "three"):
        table.add_column(name, overflow="fold")
    table.add_row("roberta.encoder.layer.0.query", "some/long/path/of/a/file", "[qv]")
    file = io.StringIO()
    Screen(file=file, width=width).print(table)
    said = "".join(file.getvalue().split())
    assert "[qv]" in said
    assert width >= 60 or "roberta.encoder.layer.0.query" in said
    assert "…" not in said


def test_logs_and_events(capfd, monkeypatch):
    lorakit.cli.output.console.cache_clear()
    begin()
    logging.getLogger("lorakit.x").warning("warned of %s", ODD)
    logging.getLogger("other").warning("theirs %s", ODD)
    show = Progress()
    show(events.SeedStarted(seed=0, of=[0], folder=ODD))
    show(events.StartedFrom(folder=ODD, fresh=[ODD]))
    show(events.BaselineScored(scores={ODD: {ODD: 1.0}}, slices={ODD: ODD}))
    show(events.SplitEvaluated(step=1, epoch=1.0, split=ODD, scores={ODD: 1.0}))
    show(events.FinishedBefore(folder=ODD, finished=ODD, not_compared=[ODD]))
    show(events.AnotherUnfinished(folder=ODD, changes=[ODD]))
    said = capfd.readouterr().err
    assert harmless(said)
    assert said.count("[qv] [/no] [bold]x[/bold]") == 13


def test_json_is_exact_and_harmless(capfd):
    value = {ODD: [ODD, "\udcff", "é"], "nan": float("nan")}
    give(value, True)
    out = capfd.readouterr().out
    assert json.loads(out) == {ODD: [ODD, "\udcff", "é"], "nan": None}
    assert harmless(out)
    text = json.dumps({"a": ODD}, indent=2, ensure_ascii=False)
    assert json.loads(json_safe(text)) == {"a": ODD}


def test_no_verb_writes_past_it():
    """`print`, a Console and a Text of rich are made in two files, and nowhere else in the command
    line."""
    for file in sorted(Path(lorakit.cli.__file__).parent.glob("*.py")):
        made = {
            node.func.id
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        allowed = {"visible.py": {"print"}, "screen.py": {"Text", "Console"}}.get(file.name, set())
        assert made & {"print", "Text", "Console"} <= allowed, file.name


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory) -> Path:
    """A folder with a recipe and data whose texts, labels, names and targets all are odd."""
    folder = tmp_path_factory.mktemp("odd") / "a [qv] [x] dir"
    folder.mkdir()
    for name in ("train.csv", "dev.csv"):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            rows = [
                (f"it was {'good' if i % 2 else 'bad'} {ODD} {i}", f"{ODD}{i % 2}")
                for i in range(32)
            ]
            csv.writer(file).writerows([("text", "label"), *rows])
    values = {
        "about": ODD,
        "task": {
            "name": "classification",
            "train": str(folder / "train.csv"),
            "validation": str(folder / "dev.csv"),
        },
        "model": {"name": "lorakit:tiny_encoder"},
        "method": {"name": "lora", "targets": ["re:.*layer.[01].attention.self.(query|value)"]},
        "train": {"max_steps": 2, "global_batch_size": 8, "warmup": 0},
        "expect": {"scores": {"accuracy": {"value": 50, "spread": 1}}, "source": ODD},
    }
    (folder / "own [qv].yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder


def test_every_verb(odd_run, lorakit_cli, monkeypatch):
    monkeypatch.chdir(odd_run)
    recipe, runs = "own [qv].yaml", "runs [bold] [x]"

    def ask(*words: object, code: int = 0):
        done = lorakit_cli(*words)
        assert done.code == code, done.err
        assert harmless(done.out + done.err), words
        return done

    assert "re:.*layer.[01].attention" in ask("check", recipe).err
    assert ODD not in ask("check", recipe, "--json").out
    done = ask("train", recipe, "--runs", runs, "--cpu", "--json")
    run = Path(done.json["run"])
    assert run.is_dir()
    assert f"{runs}/own [qv]-" in done.err
    assert "[/no]" in done.err, "the source of what was published"
    again = ask("train", recipe, "--runs", runs, "--cpu", "--json")
    assert again.json["run"] == str(run)
    assert str(run) in ask("eval", run).err
    ask("report", run)
    ask("report", run, "--format", "csv")
    assert (
        json.loads(ask("report", run, "--json").out)["results"][0]["recipe_values"]["about"] == ODD
    )
    ask("analyze", "norms", run)
    assert "m [x]" in ask("merge", run, "--to", "m [x]").err
    assert yaml.safe_load(ask("recipes", "show", recipe).out)["about"] == ODD
    assert "[qv] [/no] [bold]x[/bold]" in ask("recipes", "show", recipe, "--origins").out
    assert ask("recipes", "show", recipe, "--json").json["recipe"]["about"] == ODD
    assert "[qv]" in ask("launch-command", recipe, "--processes-per-node", 1).out
    for words in (
        ("check", f"no {ODD}"),
        ("eval", f"no {ODD}"),
        ("check", recipe, f"{ODD}=1"),
        (f"verb {ODD}",),
    ):
        assert "[qv]" in ask(*words, code=2).err


def _ask(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.run(
        [sys.executable, "-m", "lorakit", *words],
        cwd=folder,
        env=known,
        capture_output=True,
        check=False,
    )


def test_a_terminal_of_ascii(odd_run):
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    done = _ask("recipes", "show", "own [qv].yaml", "about=é – ±", folder=odd_run, **ascii_only)
    assert (done.returncode, done.stderr) == (0, b"")
    assert yaml.safe_load(done.stdout.decode("ascii"))["about"] == "é – ±"
    done = _ask(
        "recipes", "show", "own [qv].yaml", "about=é", "--json", folder=odd_run, **ascii_only
    )
    assert json.loads(done.stdout.decode("ascii"))["recipe"]["about"] == "é"
    done = _ask("recipes", "list", folder=odd_run, **ascii_only)
    assert done.returncode == 0
    assert done.stdout.isascii()


def test_a_reader_that_goes_away(odd_run):
    """As `| head -1`: silent, with the exit code of a program that SIGPIPE ended."""
    command = [sys.executable, "-m", "lorakit", "schema"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


@pytest.mark.slow
def test_a_home_that_is_not_set(odd_run):
    without = {key: value for key, value in os.environ.items() if key != "HOME"} | {
        "PYTHONPATH": os.pathsep.join(sys.path)
    }
    done = subprocess.run(
        [sys.executable, "-m", "lorakit", "check", "quickstart"],
        env=without,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words",
    [["check", "NAME"], ["train", "quickstart", "--runs", "NAME"], ["eval", "NAME"]],
    ids=str,
)
def test_a_path_that_is_not_utf8(lorakit_cli, monkeypatch, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    done = lorakit_cli(*(os.fsdecode(b"r\xff") if word == "NAME" else word for word in words))
    assert done.code == 2
    assert "r\\xff" in done.err
    assert not list(tmp_path.iterdir())


def test_a_text_of_a_recipe_that_is_no_text(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text('task: "\\uDC80"\nmodel: x\nmethod: lora\n')
    with pytest.raises(RecipeError, match=r"own\.yaml:1"):
        load_recipe(str(file))
    with pytest.raises(RecipeError, match="command line"):
        load_recipe("quickstart", ["about=\udcff"])
