"""Settings of the whole test run. The fixtures of several folders are in `testing/fixtures.py`."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Set before torch starts its threads: on a busy machine, waiting threads that spin slow everything down 10 times.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Triton reads this when it is imported: tests run the kernels of a GPU with its interpreter (testing/kernels.py).
os.environ["TRITON_INTERPRET"] = "1"
# With these set, pytest explains unequal bytes with difflib, which takes hours for two images of 1.2 MB.
for name in ("CI", "BUILD_NUMBER"):
    os.environ.pop(name, None)

# The same examples in each run, and no deadline: a test must not fail because the machine is slow.
settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

pytest.register_assert_rewrite("testing")
pytest_plugins = ["testing.distribution", "testing.fixtures"]

# A test that begins this many seconds before a month's end would see the usage of two months.
MONTH_END_S = 240.0

# What the tests of a folder start, and what a fixture starts for any test that uses it.
FOLDER_MARKERS = {
    "browser": "browser",
    "containers": "containers",
    "e2e": "triton",
    "integration/http": "slow",
    "integration/redis": "redis",
    "integration/triton": "triton",
}
FIXTURE_MARKERS = {"redis_server": "redis", "service": "triton", "stack": "triton", "triton_server": "triton"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder and its fixtures, so that `make unit` can leave out what starts other programs."""
    tests = Path(__file__).parent
    for item in items:
        folder = f"{item.path.relative_to(tests).parent.as_posix()}/"
        names = {marker for name, marker in FOLDER_MARKERS.items() if folder.startswith(f"{name}/")}
        names |= {FIXTURE_MARKERS[name] for name in getattr(item, "fixturenames", ()) if name in FIXTURE_MARKERS}
        for name in sorted(names):
            item.add_marker(name)


def pytest_runtest_setup() -> None:
    """Let no test begin just before a month's end (UTC): wait for the next month, as the usage is counted per month."""
    now = datetime.now(UTC)
    soon = now + timedelta(seconds=MONTH_END_S)
    if soon.month != now.month:
        month_begin = soon.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        time.sleep((month_begin - now).total_seconds() + 1)
