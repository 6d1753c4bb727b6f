"""Real signals to the two processes of a server: what ends it, and what does not."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testing.data import ROOT
from testing.ports import find_free_port
from testing.raw_http import LIMIT_S
from testing.server import START_LIMIT_S, read_worker_pid, serving

HARMLESS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGWINCH")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def responds(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=LIMIT_S) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_signals_without_meaning_change_nothing(tmp_path: Path) -> None:
    """To the arbiter and to the worker. gunicorn would reload, start a second server or worker, or die."""
    with serving(tmp_path) as server:
        worker = read_worker_pid(server)
        for name in HARMLESS:
            for pid in (server.process.pid, worker):
                os.kill(pid, signal.Signals[name])
                assert responds(server.port), f"{name} to {pid}"
        os.kill(worker, signal.SIGINT)  # Ctrl-C, which a terminal sends to both, and of which the arbiter decides
        time.sleep(1.2)  # the arbiter wakes once a second
        assert children(server.process.pid) == [worker]

        server.process.terminate()
        assert server.process.communicate(timeout=START_LIMIT_S) == ("", "")
    assert server.process.returncode == 0


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL])
def test_worker_that_ends_is_replaced(tmp_path: Path, sign: signal.Signals) -> None:
    with serving(tmp_path) as server:
        worker = read_worker_pid(server)
        os.kill(worker, sign)

        wait_until(lambda: worker not in children(server.process.pid), "the worker went on")
        wait_until(lambda: responds(server.port), "it was not replaced")
        assert len(children(server.process.pid)) == 1
        assert (tmp_path / "closed").exists() == (sign is not signal.SIGKILL)


def test_worker_that_dies_before_it_serves_ends_the_server(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "testing.serve_fake", "killed"],
        cwd=ROOT,
        env={"SUPERRES_STATE_DIR": str(tmp_path), "SUPERRES_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=START_LIMIT_S,
        check=False,
    )

    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr == (
        "superres: The worker process died 3 times before it could serve. The log says by which signal; after SIGKILL "
        f"give the server more memory. (log: {tmp_path}/gateway.log)\n"
    )


def test_server_with_unwritable_standard_output_serves(tmp_path: Path) -> None:
    """As with `superres serve > FILE` on a full disk."""
    port = find_free_port()
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        process = subprocess.Popen(
            [sys.executable, "-m", "testing.serve_fake"],
            cwd=ROOT,
            env=os.environ | {"SUPERRES_STATE_DIR": str(tmp_path), "SUPERRES_PORT": str(port)},
            stdout=full,
            stderr=subprocess.PIPE,
        )
    wait_until(lambda: responds(port), "it never started")
    process.terminate()

    assert process.communicate(timeout=START_LIMIT_S)[1] == b""
    assert process.returncode == 0


@contextmanager
def terminal(state_dir: Path, *command: str) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """Serve in a terminal of its own; yields the process, the descriptor of the terminal, and the port."""
    port = find_free_port()
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", *command, sys.executable, "-m", "testing.serve_fake"],
        cwd=state_dir,  # nohup writes nohup.out here
        env=os.environ | {"SUPERRES_STATE_DIR": str(state_dir), "SUPERRES_PORT": str(port), "PYTHONPATH": str(ROOT)},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    try:
        wait_until(lambda: responds(port), "it never started")
        yield process, master, port
    finally:
        process.terminate()
        process.wait(START_LIMIT_S)


def close_terminal(pid: int, master: int) -> None:
    os.close(master)  # the kernel sends SIGHUP to the leader of the session
    os.killpg(pid, signal.SIGHUP)  # and a shell to its jobs


def test_nohup_server_survives_its_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with terminal(tmp_path, "nohup") as (process, master, port):
        worker = children(process.pid)
        close_terminal(process.pid, master)
        time.sleep(1.2)  # the arbiter wakes once a second

        assert responds(port)
        assert children(process.pid) == worker
    assert "Traceback" not in (tmp_path / "gateway.log").read_text()


def test_server_ends_with_its_terminal(tmp_path: Path) -> None:
    with terminal(tmp_path, "env", "--default-signal=HUP") as (process, master, _):  # the tests may run under nohup
        close_terminal(process.pid, master)

        assert process.wait(START_LIMIT_S) == 0
        assert (tmp_path / "closed").read_text() == "closed"
    assert "Traceback" not in (tmp_path / "gateway.log").read_text()
