"""The results and logs of the tests of report pages, which a study's page shows as well."""

from tests.report.conftest import logs, make_result  # noqa: F401  fixtures
