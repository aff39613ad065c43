"""Every test in this folder runs once per change; a table of what was tried ends the output."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.nightly.plan import ROWS, SEED, listed, table

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _thousands_of_warnings_are_not_kept(_what_is_logged_is_seen: None) -> None:
    from transformers.utils import logging as theirs

    logging.getLogger("lorakit").propagate = False
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.nightly)
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not ROWS:
        return
    terminalreporter.section(f"LORAKIT_FUZZ_SEED={SEED}")
    for line in table():
        terminalreporter.write_line(line)
    for row in ROWS:
        if row.faults:
            terminalreporter.write_line(f"{row.kind}:")
            for line in listed(row):
                terminalreporter.write_line(line)
