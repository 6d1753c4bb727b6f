"""A pytest plugin that distributes the tests of `make test` to the processes of pytest-xdist.

The tests of a file run in one process, as they share servers. So do those of folders that share a Triton or a Chromium.
Such groups come first, the longest one before the others, so that no process is idle at the end.
"""

from __future__ import annotations

from itertools import takewhile

import pytest
from xdist.scheduler import LoadFileScheduling

# Each line is a group. A test belongs to the first that names it.
GROUPS: tuple[tuple[str, ...], ...] = (
    (
        "tests/e2e/",
        "tests/install/",
        "tests/docs/",
        "tests/browser/test_real_phones.py",
        "tests/browser/test_real_stack.py",
    ),
    ("tests/browser/",),
    (
        "tests/integration/triton/",
        "tests/containers/test_key_rotation.py",
        "tests/containers/test_triton_scripts.py",
        "tests/k8s/test_monitoring.py",
    ),
)
# Of the files outside the groups, these come first.
LONG_FILES = ("tests/integration/", "tests/unit/swinir/", "tests/unit/benchmarks/", "tests/unit/planning/")


def find_group(nodeid: str) -> str:
    """Return what runs in one process with this test: the first folder of its group, or its file."""
    return next((group[0] for group in GROUPS if nodeid.startswith(group)), nodeid.split("::", 1)[0])


def find_rank(nodeid: str) -> int:
    """Return the place of a test in the order of the run: groups, files that take long, all others."""
    firsts = (*GROUPS, *((name,) for name in LONG_FILES))
    return len(list(takewhile(lambda names: not nodeid.startswith(names), firsts)))


class GroupScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives groups and files to processes in the order of the collected tests."""

    def _split_scope(self, nodeid: str) -> str:
        return find_group(nodeid)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> GroupScheduling | None:
    """Distribute by groups if the option --dist is loadfile."""
    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return GroupScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests that take long begin first."""
    items.sort(key=lambda item: find_rank(item.nodeid))
