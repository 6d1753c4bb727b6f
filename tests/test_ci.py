"""`.ci/run` runs checks, tests and containers, and exits with the code of the first failure."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from testing.data import ROOT

MAKE = """#!/bin/sh
echo "$1" >>made
case $1 in {cases} esac
exit 0
"""


def run_ci(folder: Path, codes: dict[str, int], uid: int = 0) -> tuple[list[str], int]:
    """Run a copy of the script with a `make` that records its targets and fails for the given ones."""
    tools = folder / "tools"
    (folder / ".ci").mkdir()
    tools.mkdir()
    shutil.copy2(ROOT / ".ci" / "run", folder / ".ci" / "run")
    cases = " ".join(f"{target}) exit {code};;" for target, code in codes.items())
    (tools / "make").write_text(MAKE.format(cases=cases))
    (tools / "id").write_text(f"#!/bin/sh\necho {uid}\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    environ = {"PATH": f"{tools}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", folder / ".ci" / "run"], env=environ, cwd=folder, check=False)
    return (folder / "made").read_text().split(), done.returncode


@pytest.mark.parametrize(
    ("codes", "ran", "code"),
    [
        ({}, ["check", "test", "containers"], 0),
        ({"check": 2}, ["check"], 2),
        ({"test": 3}, ["check", "test", "containers"], 3),
        ({"containers": 4}, ["check", "test", "containers"], 4),
        ({"test": 3, "containers": 4}, ["check", "test", "containers"], 3),
    ],
)
def test_containers_run_after_a_failed_test(codes: dict[str, int], ran: list[str], code: int, tmp_path: Path) -> None:
    assert run_ci(tmp_path, codes) == (ran, code)


def test_without_root_the_containers_are_left_out(tmp_path: Path) -> None:
    assert run_ci(tmp_path, {"containers": 4}, uid=1000) == (["check", "test"], 0)
