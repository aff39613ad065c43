"""The small results of tests/report, for the pages of studies."""

from __future__ import annotations

from tests.report.conftest import logs, make_result, pictures, seed_result  # noqa: F401
