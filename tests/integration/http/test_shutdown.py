"""How the server ends: on a signal, with a request running, and when the backend does not start."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.access.api_keys import ApiKeyStore
from testing.data import ROOT
from testing.raw_http import LIMIT_S, connected, post_headers, read_response
from testing.requests import PHOTO
from testing.server import START_LIMIT_S, Served, serving


def stop(server: Served, sign: signal.Signals) -> tuple[int, str, str]:
    """Stop the server; return (exit code, stdout after the first line, stderr). Fails after START_LIMIT_S."""
    server.process.send_signal(sign)
    out, complaints = server.process.communicate(timeout=START_LIMIT_S)
    return server.process.returncode, out, complaints


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_server_and_closes_the_backend(tmp_path: Path, sign: signal.Signals) -> None:
    with serving(tmp_path) as server, connected(server) as idle:
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
        assert read_response(idle)[0] == 200

        code, out, complaints = stop(server, sign)

    assert (code, out, complaints) == (0, "", "")
    assert (tmp_path / "closed").read_text() == "closed"


def test_shutdown_cancels_a_running_job(tmp_path: Path) -> None:
    with serving(tmp_path, "slow", SUPERRES_DEADLINE_S="600") as server, connected(server) as busy:
        key = ApiKeyStore(tmp_path / "keys.json").new("tests")
        busy.sendall(post_headers(key, f"Content-Length: {len(PHOTO)}") + PHOTO)
        with connected(server) as sock:
            end = time.monotonic() + LIMIT_S
            while b'"running":1' not in ask_ready(sock):
                assert time.monotonic() < end

        code, _, complaints = stop(server, signal.SIGTERM)  # it must not wait for the job's deadline of 600 s
        status, headers, body = read_response(busy)

    assert (code, complaints) == (0, "")
    assert (status, headers["retry-after"]) == (503, "10"), "a waiting client gets a response"
    assert b"The gateway is restarting." in body
    assert b"/problems/backend-unavailable" in body
    assert (tmp_path / "closed").exists()


def ask_ready(sock: socket.socket) -> bytes:
    sock.sendall(b"GET /readyz HTTP/1.1\r\nHost: here\r\n\r\n")
    return read_response(sock)[2]


@pytest.mark.parametrize(
    ("how", "words"), [("broken", "No Triton to be had. Install one."), ("never-ready", "Triton does not start")]
)
def test_missing_backend_ends_the_server_with_its_error(tmp_path: Path, how: str, words: str) -> None:
    with pytest.raises(AssertionError) as caught, serving(tmp_path, how):
        pass

    assert words in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("how", ["broken", "never-ready"])
def test_missing_backend_sets_the_exit_code(tmp_path: Path, how: str) -> None:
    environ = {"SUPERRES_STATE_DIR": str(tmp_path), "SUPERRES_PORT": "0"}
    process = subprocess.run(
        [sys.executable, "-m", "testing.serve_fake", how],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=START_LIMIT_S,
        check=False,
    )

    assert process.returncode == 3
    assert process.stdout == ""
    assert len(process.stderr.splitlines()) == 1
