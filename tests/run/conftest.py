"""Verbs run in this process, as `lorakit ...` would, on the tiny models that ship."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import lorakit.cli.output

SMALL = ["data.limit={train: 64, validation: 32}", "train.epochs=2", "train.global_batch_size=16"]


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out)


@pytest.fixture
def lorakit_cli(monkeypatch, capfd):
    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["lorakit", *map(str, arguments)])
        lorakit.cli.output.console.cache_clear()
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            lorakit.cli.main()
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        return Done(end.value.code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A run folder: the quickstart on a slice, two seeds."""
    from lorakit.recipe.load import load_recipe
    from lorakit.run.train import train_recipe

    loaded = load_recipe("quickstart", [*SMALL, "seeds=[0, 1]"])
    folder, _ = train_recipe(loaded, tmp_path_factory.mktemp("runs"), lambda event: None)
    return folder
