"""Runs every test: what `make test` does. The few that failed are run once more, in a new process with new servers.

A test of Triton, Redis, Chromium or gunicorn can fail once in a hundred runs: for a fault of the product, of the test
or of these programs. That fault must be found, but it should not hide the result of 8,000 other tests. Unit tests are
not run again, and neither is anything if more than MAX_FAILED tests failed. A test that passes the second time is named
at the end as unstable.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

import pytest

MAX_FAILED = 3
NEVER_AGAIN = ("tests/unit/", "tests/test_")


class Failures:
    """A pytest plugin that collects the tests that failed, and whether a file could not be collected."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.is_incomplete = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a test whose set-up, call or teardown failed."""
        if report.failed and report.nodeid not in self.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that could not be collected."""
        self.is_incomplete |= report.failed

    @property
    def may_run_again(self) -> bool:
        """Whether only a few tests failed, all of them tests that start other programs."""
        is_unit = any(name.startswith(NEVER_AGAIN) for name in self.failed)
        return 0 < len(self.failed) <= MAX_FAILED and not is_unit and not self.is_incomplete


def run(arguments: list[str]) -> int:
    """Run pytest with these arguments, then the few failed tests again; return the exit code."""
    failures = Failures()
    code = int(pytest.main(arguments, plugins=[failures]))
    if code != pytest.ExitCode.TESTS_FAILED or not failures.may_run_again:
        return code
    sys.stdout.write(f"\nOnce more, in a new process: {', '.join(failures.failed)}\n\n")
    sys.stdout.flush()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as names:
        names.write("\n".join(failures.failed))
        names.flush()
        code = subprocess.run([sys.executable, "-m", "pytest", f"@{names.name}"], check=False).returncode  # noqa: S603
    verdict = "failed, and so did the second run" if code else "UNSTABLE (passed the second time; find out why)"
    sys.stdout.write("".join(f"\n{verdict}: {name}" for name in failures.failed) + "\n")
    return code


if __name__ == "__main__":
    raise SystemExit(run(sys.argv[1:]))
