"""SIGTERM for docker/triton/start: Triton gets it once no stream is open, and ends within EXIT_TIMEOUT_S."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from testing.data import ROOT

LIMIT_S = 120.0
TRITON = ROOT / "docker" / "triton"
SERVER = """#!/bin/bash
trap 'echo TERM >>"{log}"; {on_term}' TERM
echo started >>"{log}"
while true; do sleep 0.05; done
"""


class StartScript:
    """`start` with stand-ins of tritonserver and of the count of open streams, which a file holds."""

    def __init__(self, folder: Path, *, on_term: str, exit_timeout_s: int, before: str = "") -> None:
        self._log, self._streams = folder / "log", folder / "streams"
        self._log.write_text("")
        self.set_streams(0)
        shutil.copy(TRITON / "start", folder / "start")
        _write_script(folder / "tritonserver", SERVER.format(log=self._log, on_term=on_term))
        _write_script(folder / "open-streams", f"#!/bin/bash\ncat {self._streams}\n")
        (folder / "key").write_text("k" * 32)
        environ = {
            "PATH": os.environ["PATH"],
            "TRITONSERVER": str(folder / "tritonserver"),
            "MODEL_KEY_FILE": str(folder / "key"),
            "API_KEY_FILE": str(folder / "key"),
            "EXIT_TIMEOUT_S": str(exit_timeout_s),
        }
        # It deletes no shared memory here, where other servers may run.
        command = ["bash", "-c", f'rm() {{ :; }}; {before} source "$1"', "bash", str(folder / "start")]
        self.process = subprocess.Popen(command, env=environ, start_new_session=True)
        wait_for(lambda: "started" in self.log())

    def set_streams(self, count: int) -> None:
        self._streams.write_text(str(count))

    def log(self) -> list[str]:
        return self._log.read_text().split()


def _write_script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@contextmanager
def running_script(
    folder: Path, *, on_term: str = "exit 0", exit_timeout_s: int = 60, before: str = ""
) -> Iterator[StartScript]:
    script = StartScript(folder, on_term=on_term, exit_timeout_s=exit_timeout_s, before=before)
    try:
        yield script
    finally:
        with suppress(ProcessLookupError):  # all have ended
            os.killpg(script.process.pid, signal.SIGKILL)
        script.process.wait()


def test_server_gets_sigterm_once_no_stream_is_open(tmp_path: Path) -> None:
    with running_script(tmp_path) as script:
        script.set_streams(2)
        script.process.send_signal(signal.SIGTERM)
        for count in (2, 1):
            script.set_streams(count)
            with pytest.raises(subprocess.TimeoutExpired):  # longer than the interval between two looks
                script.process.wait(1.2)
            assert script.log() == ["started"]
        script.process.send_signal(signal.SIGTERM)  # a second one does not hurry
        script.set_streams(0)
        assert script.process.wait(LIMIT_S) == 0
        assert script.log() == ["started", "TERM"]


def test_server_that_does_not_end_is_killed(tmp_path: Path) -> None:
    with running_script(tmp_path, on_term="true", exit_timeout_s=2) as script:
        script.process.send_signal(signal.SIGTERM)
        assert script.process.wait(LIMIT_S) == 128 + signal.SIGKILL
        assert script.log() == ["started", "TERM"]


def test_streams_without_end_do_not_keep_the_server(tmp_path: Path) -> None:
    with running_script(tmp_path, exit_timeout_s=2) as script:
        script.set_streams(1)
        script.process.send_signal(signal.SIGTERM)
        assert script.process.wait(LIMIT_S) in (0, 128 + signal.SIGKILL)


def test_signal_during_the_start_ends_the_server(tmp_path: Path) -> None:
    # Before the script replaces the trap of the start by that of the running server.
    once = f"while [[ ! -s {tmp_path}/log ]]; do sleep 0.05; done; kill -TERM $$"
    before = f'trap() {{ if [[ $1 = end_server ]]; then {once}; fi; builtin trap "$@"; }};'
    with running_script(tmp_path, before=before) as script:
        assert script.process.wait(LIMIT_S) == 0
        assert script.log() == ["started", "TERM"]


@pytest.mark.parametrize("status", [0, 3])
def test_exit_status_is_the_servers(tmp_path: Path, status: int) -> None:
    with running_script(tmp_path, on_term=f"exit {status}") as script:
        script.process.send_signal(signal.SIGTERM)
        assert script.process.wait(LIMIT_S) == status
