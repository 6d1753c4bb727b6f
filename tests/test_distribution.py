"""`make test` runs tests in two processes; tests that share a server run in the same one."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from testing.data import ROOT
from testing.distribution import GROUPS, LONG_FILES, find_group, find_rank

NAME_PROCESS = """
import os
def test_it():
    with open("processes", "a") as processes:
        processes.write(f"{__file__.rpartition('/')[2]} {os.environ['PYTEST_XDIST_WORKER']}\\n")
"""


def test_every_named_path_exists() -> None:
    names = [name for names in (*GROUPS, LONG_FILES) for name in names]
    assert [name for name in names if not (ROOT / name).exists()] == []
    assert all(name.endswith(("/", ".py")) for name in names), "tests/e2e would also be the start of tests/e2e_more"


@pytest.mark.parametrize("fixture", ["stack: Stack", "triton_server: TritonServer"])
def test_server_of_the_whole_session_has_one_group(fixture: str) -> None:
    paths = [path for path in (ROOT / "tests").rglob("test_*.py") if re.search(rf"[( ]{fixture}[,)]", path.read_text())]
    names = [path.relative_to(ROOT).as_posix() for path in paths if path != Path(__file__)]
    assert len({find_group(f"{name}::test_it") for name in names}) == 1, names


def test_groups_come_first_and_short_files_last() -> None:
    names = ["unit/gateway/test_a.py", "unit/swinir/test_a.py", "integration/redis/test_a.py", "browser/test_a.py"]
    ranks = [find_rank(f"tests/{name}::test_it") for name in names]
    assert ranks == sorted(set(ranks), reverse=True)


def test_processes_never_choose_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[set[int]] = []
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "2")
    for name in ("gw0", "gw1"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", name)
        spec = importlib.util.spec_from_file_location("ports_of_a_process", ROOT / "testing" / "ports.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        chosen.append({port % 2 for port in module.find_free_ports(20)})
    assert chosen == [{0}, {1}]


def test_group_runs_in_one_process(tmp_path: Path) -> None:
    files = ["unit/test_c.py", "unit/test_d.py", "browser/test_a.py", "browser/test_b.py"]
    for name in files:
        (tmp_path / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / name).write_text(NAME_PROCESS)
    plugins = ("-p", "xdist.plugin", "-p", "testing.distribution")
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", *plugins, "-n", "2", "--dist", "loadfile", "tests"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    process = dict(line.split() for line in (tmp_path / "processes").read_text().splitlines())
    assert len(process) == len(files)
    assert process["test_a.py"] == process["test_b.py"] != process["test_c.py"]
