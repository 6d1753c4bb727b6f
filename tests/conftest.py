"""Settings of the whole test run. The fixtures of several folders are in `testing/fixtures.py`."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# Before torch starts its threads: waiting threads that spin cost 10x on a machine that does something else as well.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Where these are set pytest explains unequal bytes by difflib: two unequal pictures of 1.2 MB take hours, not seconds.
for name in ("CI", "BUILD_NUMBER"):
    os.environ.pop(name, None)

# The same examples in each run, and no test of how quick a machine is: a commit is refused for what it did.
settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

pytest.register_assert_rewrite("testing")
pytest_plugins = ["testing.fixtures"]
