"""`make test` runs a few failed tests of servers once more, and says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testing.data import ROOT

FAILS = "def test_it():\n    raise AssertionError('broken')\n"
PASSES = "def test_it():\n    pass\n"
PASSES_LATER = """
from pathlib import Path
import pytest

@pytest.mark.parametrize("name", ["plain", "with space [and] brackets"])
def test_it(name):
    tried = Path(f"{Path(__file__).stem} {name}")
    if not tried.exists():
        tried.touch()
        raise AssertionError("broken")
"""
FAILS_IN_TEARDOWN = (
    "import pytest\n@pytest.fixture\ndef it():\n    yield\n    raise OSError\ndef test_it(it):\n    pass\n"
)


def run(folder: Path, files: dict[str, str]) -> tuple[int, str]:
    """Run these test files; return the exit code and what was printed."""
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\ntestpaths = ['tests']\n")
    for name, text in files.items():
        path = folder / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "scripts.run_tests"]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_tests_that_pass_the_second_time_are_named_as_unstable(tmp_path: Path) -> None:
    code, output = run(tmp_path, {"integration/test_a.py": PASSES_LATER, "unit/test_b.py": PASSES})
    assert code == 0
    unstable = [line for line in output.splitlines() if line.startswith("UNSTABLE")]
    assert [line.partition("::")[2] for line in unstable] == ["test_it[plain]", "test_it[with space [and] brackets]"]


@pytest.mark.parametrize("text", [FAILS, FAILS_IN_TEARDOWN])
def test_a_test_that_fails_twice_fails(tmp_path: Path, text: str) -> None:
    code, output = run(tmp_path, {"browser/test_a.py": text})
    assert code == 1
    assert "failed, and so did the second run: tests/browser/test_a.py::test_it" in output


@pytest.mark.parametrize(
    "files",
    [
        {"unit/test_a.py": PASSES_LATER},
        {"test_a.py": PASSES_LATER},
        {"unit/test_a.py": PASSES_LATER, "e2e/test_b.py": PASSES_LATER},
        {"e2e/test_a.py": PASSES_LATER, "browser/test_b.py": "import nothing_of_this_name"},
        {"e2e/test_a.py": PASSES_LATER, "browser/test_b.py": PASSES_LATER.replace("test_it", "test_b")},
    ],
    ids=["unit test", "top level", "both", "import error", "four"],
)
def test_nothing_else_is_run_again(tmp_path: Path, files: dict[str, str]) -> None:
    code, output = run(tmp_path, files)
    assert code != 0
    assert "Once more" not in output
