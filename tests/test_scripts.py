"""Scripts refuse what they do not know, and change no file when they are asked for help."""

from __future__ import annotations

import subprocess

import pytest

from tests.modules import ROOT, load_module

SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
WRITE_ALL = ("make_results", "make_gallery", "make_peer_pages", "performance", "make_architecture")
"""Scripts that write pages when nothing is asked of them."""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_reads_its_options(path):
    text = path.read_text(encoding="utf-8")
    assert "argparse.RawDescriptionHelpFormatter" in text
    assert "sys.argv" not in text


@pytest.mark.parametrize("name", WRITE_ALL)
@pytest.mark.parametrize(("option", "code"), [("--help", 0), ("--nothing", 2)])
def test_nothing_is_written_by_an_option_that_writes_nothing(name, option, code, monkeypatch):
    script = load_module(f"scripts/{name}.py")
    monkeypatch.setattr("sys.argv", [f"{name}.py", option])
    monkeypatch.setattr("pathlib.Path.write_text", lambda *_, **__: pytest.fail("it wrote"))
    with pytest.raises(SystemExit) as end:
        script.main()
    assert end.value.code == code


def test_a_picture_that_nobody_draws_is_refused(monkeypatch, capsys):
    script = load_module("scripts/draw_gallery.py")
    monkeypatch.setattr("sys.argv", ["draw_gallery.py", "lorra"])
    with pytest.raises(SystemExit) as end:
        script.main()
    assert end.value.code == 2
    assert "lorra" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["quickstart", "test"])
def test_ci_ends_where_readme_lacks_a_command(name, tmp_path):
    """Otherwise a README without its marker would land without a test."""
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    begin = text.index("command_of()")
    head = "set -euo pipefail\n" + text[begin : text.index("\nstep() {")]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for changed, code in ((readme, 0), (readme.replace(f"<!-- ci: {name} -->", ""), 1)):
        (tmp_path / "README.md").write_text(changed, encoding="utf-8")
        done = subprocess.run(["bash", "-c", head], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == code
