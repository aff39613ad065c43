"""Where lorakit runs, and what it says elsewhere."""

from __future__ import annotations

import pytest

from tests.commands import python


@pytest.mark.parametrize("module", ["lorakit", "lorakit.cli", "lorakit.metrics"])
def test_windows_is_refused_at_import(module):
    code = f"import sys; sys.platform = 'win32'; import {module}"
    done = python("-c", code)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: ")
    assert "Windows" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_others_are_not(platform):
    code = f"import sys; sys.platform = {platform!r}; import lorakit.cli; lorakit.cli.add_verbs()"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
