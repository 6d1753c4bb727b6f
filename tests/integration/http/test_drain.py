"""A server that is stopped finishes what it has begun and takes nothing new."""

from __future__ import annotations

import json
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.access.api_keys import ApiKeyStore
from testing.raw_http import LIMIT_S, Response, connected, post_headers, read_problem_slug, read_response
from testing.requests import PHOTO
from testing.server import START_LIMIT_S, Served, serving

UPLOAD = f"Content-Length: {len(PHOTO)}"


def ask(server: Served, request: bytes) -> Response:
    with connected(server) as sock:
        sock.sendall(request)
        return read_response(sock)


def ask_ready(server: Served) -> Response:
    return ask(server, b"GET /readyz HTTP/1.1\r\nHost: here\r\n\r\n")


def wait_for_jobs(server: Served, running: int, waiting: int) -> None:
    end = time.monotonic() + LIMIT_S
    while (state := json.loads(ask_ready(server)[2]))["running"] != running or state["waiting"] != waiting:
        assert time.monotonic() < end, state
        time.sleep(0.02)


def wait_for_drain(server: Served) -> Response:
    end = time.monotonic() + LIMIT_S
    while (response := ask_ready(server))[0] == 200:
        assert time.monotonic() < end
    return response


def read_rest(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65_536), b""))


def test_stopped_server_finishes_its_images_and_takes_no_others(tmp_path: Path) -> None:
    """One image runs, one is an event stream, one waits in the queue, and one is still being uploaded."""
    with serving(tmp_path, "slow", SUPERRES_DRAIN_S="300", SUPERRES_MAX_CONCURRENT_JOBS="2") as server:
        key = ApiKeyStore(tmp_path / "keys.json").new("tests")
        with ExitStack() as open_sockets:
            plain, stream, queued, late, idle = (open_sockets.enter_context(connected(server)) for _ in range(5))
            idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
            assert read_response(idle)[1]["connection"] == "keep-alive"
            plain.sendall(post_headers(key, UPLOAD) + PHOTO)
            stream.sendall(post_headers(key, UPLOAD, "Accept: text/event-stream") + PHOTO)
            wait_for_jobs(server, running=2, waiting=0)
            queued.sendall(post_headers(key, UPLOAD) + PHOTO)
            late.sendall(post_headers(key, UPLOAD) + PHOTO[:100])
            wait_for_jobs(server, running=2, waiting=1)

            server.process.send_signal(signal.SIGTERM)
            not_ready = wait_for_drain(server)
            rejected = ask(server, post_headers(key, UPLOAD) + PHOTO)
            woken = ask(server, post_headers(key, "Content-Length: 0", path="/api/v1/wake"))
            idle.sendall(post_headers(key, UPLOAD) + PHOTO)
            rejected_on_open_connection = read_response(idle)
            late.sendall(PHOTO[100:])
            (tmp_path / "go").touch()

            results = [read_response(sock) for sock in (plain, queued, late)]
            events = read_rest(stream)
        out, complaints = server.process.communicate(timeout=START_LIMIT_S)

    assert read_problem_slug(not_ready) == (503, "backend-unavailable")
    for response in (rejected, woken, rejected_on_open_connection):
        assert read_problem_slug(response) == (503, "backend-unavailable")
        assert (response[1]["retry-after"], response[1]["connection"]) == ("10", "close")
    assert [(status, headers["connection"]) for status, headers, _ in results] == [(200, "close")] * 3
    assert b"event: result\n" in events
    assert (server.process.returncode, out, complaints) == (0, "", "")
    assert (tmp_path / "closed").exists()


def test_images_left_after_the_drain_get_503(tmp_path: Path) -> None:
    """Also as an event, and for an upload whose body has not arrived."""
    with serving(tmp_path, "slow", SUPERRES_DRAIN_S="0.2") as server:
        key = ApiKeyStore(tmp_path / "keys.json").new("tests")
        with connected(server) as plain, connected(server) as stream, connected(server) as late:
            plain.sendall(post_headers(key, UPLOAD) + PHOTO)
            stream.sendall(post_headers(key, UPLOAD, "Accept: text/event-stream") + PHOTO)
            late.sendall(post_headers(key, UPLOAD) + PHOTO[:100])
            wait_for_jobs(server, running=2, waiting=0)

            server.process.send_signal(signal.SIGTERM)
            responses = [read_response(sock) for sock in (plain, late)]
            events = read_rest(stream)
        assert server.process.communicate(timeout=START_LIMIT_S) == ("", "")

    assert [read_problem_slug(response) for response in responses] == [(503, "backend-unavailable")] * 2
    assert b"event: problem\n" in events
    assert b"The gateway is restarting. You were not charged for this image." in events
    assert (tmp_path / "closed").exists()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_the_drain(tmp_path: Path, second: signal.Signals) -> None:
    with serving(tmp_path, "slow", SUPERRES_DRAIN_S="3600") as server, connected(server) as busy:
        key = ApiKeyStore(tmp_path / "keys.json").new("tests")
        busy.sendall(post_headers(key, UPLOAD) + PHOTO)
        wait_for_jobs(server, running=1, waiting=0)

        # Both at once, as from `make` and the terminal: they are still the first. A stopped process gets them together.
        for sign in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
            server.process.send_signal(sign)
        wait_for_drain(server)
        time.sleep(1)
        assert ask_ready(server)[0] == 503, "it still waits for the image"
        server.process.send_signal(second)
        response = read_response(busy)
        assert server.process.communicate(timeout=START_LIMIT_S) == ("", "")

    assert read_problem_slug(response) == (503, "backend-unavailable")
    assert server.process.returncode == 0
    assert (tmp_path / "closed").exists(), "the backend was closed"
