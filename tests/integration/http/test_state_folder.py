"""One state folder: two servers want it, its disk is full, its log is rotated."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.access.api_keys import ApiKeyStore
from gateway.storage.state_lock import LOCK_NAME
from testing.data import ROOT
from testing.raw_http import LIMIT_S, connected, post_headers, read_response
from testing.requests import PHOTO
from testing.server import START_LIMIT_S, Served, read_worker_pid, serving


def upscale(server: Served, key: str) -> str:
    """Upscale an image and return the ID of the request."""
    with connected(server) as sock:
        sock.sendall(post_headers(key, f"Content-Length: {len(PHOTO)}") + PHOTO)
        status, headers, _ = read_response(sock)
    assert status == 200
    return headers["x-request-id"]


def wait_for_line(path: Path, text: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < end, f"{text} is not in {path}"
        time.sleep(0.02)


def read_open_files(pid: int) -> set[Path]:
    """Return what the file descriptors of a process refer to, without those that it closes meanwhile."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(descriptor.readlink())
    return found


def test_second_server_is_refused_and_commands_are_not(tmp_path: Path) -> None:
    with serving(tmp_path) as first:
        with pytest.raises(AssertionError) as caught, serving(tmp_path):
            pass
        command = [sys.executable, "-m", "gateway", "keys", "new", "tests"]
        environ = os.environ | {"SUPERRES_STATE_DIR": str(tmp_path)}
        made = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
        upscale(first, made.stdout.strip())

    assert f"superres: Another server (process {first.process.pid} on " in str(caught.value)
    assert f"uses the state folder {tmp_path}. Stop it, or give this one a folder of its own" in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("kills_worker", [True, False])
def test_killed_server_leaves_no_lock(tmp_path: Path, *, kills_worker: bool) -> None:
    """A worker that is left alone notices it within a second, and the next server waits for it."""
    with serving(tmp_path) as killed:
        worker = read_worker_pid(killed)
        killed.process.kill()
        if kills_worker:
            os.kill(worker, signal.SIGKILL)
        killed.process.wait(START_LIMIT_S)

        with serving(tmp_path) as second:
            upscale(second, ApiKeyStore(tmp_path / "keys.json").new("tests"))
            assert (tmp_path / LOCK_NAME).read_text().startswith(f"process {second.process.pid} on ")


def limit_files(server: Served, n_bytes: int | None) -> None:
    """Let no file of the server's processes grow beyond so many bytes: the writes fail, as on a full disk."""
    for pid in (server.process.pid, read_worker_pid(server)):
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if n_bytes is None else n_bytes, hard))


def test_full_disk_costs_no_image(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        key = ApiKeyStore(tmp_path / "keys.json").new("tests")
        before = upscale(server, key)
        wait_for_line(tmp_path / "gateway.log", before)
        limit_files(server, 0)
        during = [upscale(server, key) for _ in range(5)]
        # The lines are written after the responses. The first one that is lost has a warning.
        assert server.process.stderr is not None
        assert select.select([server.process.stderr], [], [], LIMIT_S)[0], "every line was written"
        limit_files(server, None)
        after = upscale(server, key)
        wait_for_line(tmp_path / "gateway.log", f'"request_id": "{after}"')
        server.process.terminate()
        _, complaints = server.process.communicate(timeout=START_LIMIT_S)

    log = (tmp_path / "gateway.log").read_text()
    assert server.process.returncode == 0
    assert before in log
    assert not all(each in log for each in during)  # the last ones may be written after the disk has space again
    assert re.search(r"\d+ lines? w(as|ere) lost here: File too large", log)
    assert all(json.loads(line) for line in log.splitlines())
    assert complaints == (
        f"superres: The log {tmp_path}/gateway.log cannot be written: File too large. Lines are lost until it can; "
        "images are upscaled as before.\n"
    )


def test_new_key_on_a_full_disk_says_so_and_keeps_the_file(tmp_path: Path) -> None:
    key = ApiKeyStore(tmp_path / "keys.json").new("first")
    before = (tmp_path / "keys.json").read_bytes()
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 0; exec "$0" -m gateway keys new second', sys.executable],
        cwd=ROOT,
        env=os.environ | {"SUPERRES_STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"superres: The keys file {tmp_path}/keys.json cannot be written: File too large.\n"
    assert (tmp_path / "keys.json").read_bytes() == before
    assert ApiKeyStore(tmp_path / "keys.json").identify(key)
    assert {each.name for each in tmp_path.iterdir()} == {"keys.json", "keys.json.lock"}


def test_rotated_log_is_followed(tmp_path: Path) -> None:
    """What logrotate does with `create` and `compress`, then what it does with `copytruncate`."""
    log = tmp_path / "gateway.log"
    with serving(tmp_path, SUPERRES_LOG_MAX_BYTES="0") as server:
        key = ApiKeyStore(tmp_path / "keys.json").new("tests")
        first = upscale(server, key)
        wait_for_line(log, first)
        log.rename(tmp_path / "gateway.log.1")
        log.touch(0o640)
        server.process.send_signal(signal.SIGUSR1)
        (tmp_path / "gateway.log.1.gz").write_bytes(gzip.compress((tmp_path / "gateway.log.1").read_bytes()))
        (tmp_path / "gateway.log.1").unlink()
        second = upscale(server, key)
        wait_for_line(log, second)

        shutil.copy(log, tmp_path / "copy")
        os.truncate(log, 0)
        third = upscale(server, key)
        wait_for_line(log, third)
        text = log.read_bytes()
        open_logs = read_open_files(read_worker_pid(server))

    assert first in gzip.decompress((tmp_path / "gateway.log.1.gz").read_bytes()).decode()
    assert first not in (tmp_path / "copy").read_text()
    assert second in (tmp_path / "copy").read_text()
    assert text.startswith(b"{")
    assert [json.loads(line)["request_id"] for line in text.splitlines()] == [third]
    assert [each for each in open_logs if "gateway.log" in each.name] == [log]
