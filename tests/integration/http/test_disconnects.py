"""A client's disconnect is noticed on a real socket."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing

import pytest

from gateway.access.api_keys import ApiKeyStore
from gateway.cancellation import CancelToken
from gateway.wsgi.disconnects import DisconnectWatcher
from testing.requests import PHOTO
from testing.server import Served, serving

LIMIT_S = 120.0
BODY_TIMEOUT_S = 0.5


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real server whose backend never responds and whose body timeout is 0.5 s."""
    with serving(
        tmp_path_factory.mktemp("busy"),
        "slow",
        SUPERRES_BODY_TIMEOUT_S=str(BODY_TIMEOUT_S),
        SUPERRES_MAX_CONCURRENT_JOBS="1",
    ) as server:
        yield server


def count_running(server: Served) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/api/v1/status", timeout=LIMIT_S) as response:
        return int(json.loads(response.read())["queue"]["running"])


def wait_until_running(server: Served, count: int) -> None:
    end = time.monotonic() + LIMIT_S
    while count_running(server) != count:
        assert time.monotonic() < end, f"there were never {count} at work"
        time.sleep(0.02)


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*"])
def test_waiting_client_is_served_and_disconnect_noticed(busy: Served, accept: str) -> None:
    key = ApiKeyStore(busy.state_dir / "keys.json").new("tests")
    head = f"POST /api/v1/upscale HTTP/1.1\r\nHost: here\r\nX-API-Key: {key}\r\nAccept: {accept}\r\n"
    with closing(socket.create_connection(("127.0.0.1", busy.port), timeout=LIMIT_S)) as sock:
        sock.sendall(f"{head}Content-Length: {len(PHOTO)}\r\n\r\n".encode() + PHOTO)
        wait_until_running(busy, 1)
        time.sleep(2 * BODY_TIMEOUT_S)
        assert count_running(busy) == 1, "the body was there in time; the work may take longer"

    wait_until_running(busy, 0)


def test_socket_is_not_watched_after_its_request() -> None:
    """The file descriptor may belong to another connection before the watcher sees it."""
    watcher, cancel_token = DisconnectWatcher(), CancelToken()
    ours, theirs = socket.socketpair()
    with closing(ours):
        watcher.watch(ours, cancel_token)()
        theirs.close()
        other, watched = socket.socketpair()
        other_token = CancelToken()
        watcher.watch(watched, other_token)
        other.close()
        end = time.monotonic() + LIMIT_S
        while not other_token.is_cancelled:
            assert time.monotonic() < end, "the disconnect was not noticed"
            time.sleep(0.01)
        watched.close()

    assert not cancel_token.is_cancelled


def test_without_a_socket_nothing_is_watched() -> None:
    cancel_token = CancelToken()
    DisconnectWatcher().watch(None, cancel_token)()
    assert not cancel_token.is_cancelled
