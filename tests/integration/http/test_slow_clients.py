"""Idle and slow connections must not block the gateway: other clients are served immediately."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from werkzeug.test import EnvironBuilder

from gateway.wsgi import timeouts
from gateway.wsgi.timeouts import MIN_RESPONSE_BYTES_PER_S, RequestBodyTimeout, ResponseTimeout, SocketDeadlines
from testing import images
from testing.clock import ManualClock
from testing.raw_http import LIMIT_S, connected
from testing.requests import FORM_SECRET, Elements, form
from testing.server import Served, serving

IDLE_TIMEOUT_S = 100
AT_ONCE_S = 30.0
"""Time limit of a health check during the attack: thousands of times its duration on an idle machine.

Without the protection it waits for a slow client, and so for IDLE_TIMEOUT_S."""
UNENDED = b"GET / HTTP/1.1\r\nHost: he"
WHOLE = b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n"
FILE = b"GET /static/x/example-harbour.png HTTP/1.1\r\nHost: here\r\n\r\n"
"""79 kB; a hundred of them exceed the socket buffers."""


def connect(server: Served) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)  # so that the kernel does not accept an unread response
    sock.settimeout(LIMIT_S)
    sock.connect(("127.0.0.1", server.port))
    return sock


@contextmanager
def many_connected(server: Served, count: int, data: bytes = b"") -> Iterator[list[socket.socket]]:
    socks = []
    try:
        for _ in range(count):
            socks.append(connect(server))
            socks[-1].sendall(data)
        yield socks
    finally:
        for sock in socks:
            sock.close()


def ask_health(server: Served) -> tuple[int, float]:
    """Return the status of a health check and its duration."""
    began = time.monotonic()
    connection = HTTPConnection("127.0.0.1", server.port, timeout=LIMIT_S)
    connection.request("GET", "/healthz")
    status = connection.getresponse().status
    connection.close()
    return status, time.monotonic() - began


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the default number of threads, from which a slow client can take a thread for a long time."""
    with serving(tmp_path_factory.mktemp("usual"), SUPERRES_IDLE_TIMEOUT_S=str(IDLE_TIMEOUT_S)) as server:
        yield server


@pytest.mark.parametrize(
    ("count", "data"),
    [
        (400, b""),
        (200, UNENDED),
        (100, WHOLE + UNENDED),
        (100, b"GET / HTTP/1.1\r\nX: " + b"x" * 32_768),
        (30, b"GET /healthz HTTP/1.0\r\n\r\n"),
        (200, b"POST /nothing HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n"),
        (200, b"POST /api/v1/upscale HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n"),
    ],
    ids=[
        "silent",
        "half of the headers",
        "one and a half headers",
        "endless headers",
        "never close",
        "404 unread",
        "401 unread",
    ],
)
def test_slow_clients_do_not_block_others(usual: Served, count: int, data: bytes) -> None:
    with many_connected(usual, count, data):
        time.sleep(0.3)  # all of them are connected
        responses = [ask_health(usual) for _ in range(3)]

    assert [status for status, _ in responses] == [200] * 3
    assert usual_wait_s(responses) < AT_ONCE_S


def test_result_readers_that_stall_do_not_block_others(tmp_path: Path) -> None:
    photo = images.encode_png(np.random.default_rng(0).integers(0, 256, (1_000, 1_000, 3), dtype=np.uint8))
    with (
        serving(tmp_path, SUPERRES_FORM_SECRET=FORM_SECRET, SUPERRES_IDLE_TIMEOUT_S=str(IDLE_TIMEOUT_S)) as server,
        many_connected(server, 100, fetch_of(post_form(server, photo))) as socks,
    ):
        time.sleep(0.3)  # all of them are connected
        responses = [ask_health(server) for _ in range(3)]
        first = [sock.recv(12) for sock in socks]

    assert [status for status, _ in responses] == [200] * 3
    assert usual_wait_s(responses) < AT_ONCE_S
    assert Counter(first) == {b"HTTP/1.1 200": 16, b"HTTP/1.1 429": 84}


def test_health_responds_while_every_thread_is_stalled(tmp_path: Path) -> None:
    photo = images.encode_png(np.random.default_rng(0).integers(0, 256, (1_000, 1_000, 3), dtype=np.uint8))
    timeouts_s = {"SUPERRES_IDLE_TIMEOUT_S": str(IDLE_TIMEOUT_S)}
    with serving(tmp_path, SUPERRES_FORM_SECRET=FORM_SECRET, SUPERRES_TRUSTED_HOPS="1", **timeouts_s) as server:
        fetch = fetch_of(post_form(server, photo))
        with many_connected(server, 0) as socks:
            for number in range(80):
                socks.append(connect(server))
                socks[-1].sendall(fetch.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 192.0.2.%d\r\n\r\n" % number))
            end = time.monotonic() + LIMIT_S
            while len(select.select(socks, [], [], 0.1)[0]) < 64:
                assert time.monotonic() < end, "some threads were never taken"
            responses = [ask_health(server) for _ in range(3)]
            ready = len(select.select(socks, [], [], 0)[0])

    assert [status for status, _ in responses] == [200] * 3
    assert usual_wait_s(responses) < AT_ONCE_S
    assert ready == 64, "no thread was free all the while"


def test_file_readers_that_stall_do_not_block_others(usual: Served) -> None:
    responses, end = [], time.monotonic() + 5  # the socket buffers are full
    with many_connected(usual, 100, FILE * 100):
        while time.monotonic() < end:
            responses.append(ask_health(usual))
            time.sleep(0.1)

    assert {status for status, _ in responses} == {200}
    assert usual_wait_s(responses) < AT_ONCE_S


def usual_wait_s(responses: list[tuple[int, float]]) -> float:
    """Return the second longest wait: a pause of the machine delays one of them, a blocked server all of them."""
    return sorted(seconds for _, seconds in responses)[-2]


def fetch_of(page: str) -> bytes:
    """Return the request for the image that a result's page shows."""
    [after] = [image["src"] for image in Elements(page).by_tag["img"] if "/after" in (image["src"] or "")]
    return f"GET {after} HTTP/1.1\r\nHost: here\r\n\r\n".encode()


def post_form(server: Served, photo: bytes) -> str:
    """Return the page of a result."""
    environ = EnvironBuilder(method="POST", **form(photo)).get_environ()
    connection = HTTPConnection("127.0.0.1", server.port, timeout=LIMIT_S)
    with closing(environ["wsgi.input"]) as body:
        connection.request("POST", "/", body.read(), {"Content-Type": environ["CONTENT_TYPE"]})
    with connection.getresponse() as response:
        page = response.headers["Location"]
    connection.request("GET", page)
    with connection.getresponse() as response:
        text = response.read().decode()
    connection.close()
    assert response.status == 200, text
    return text


def test_full_table_drops_an_idle_connection(usual: Served) -> None:
    with many_connected(usual, 700, UNENDED):
        responses = [ask_health(usual) for _ in range(3)]

    assert [status for status, _ in responses] == [200] * 3
    assert usual_wait_s(responses) < AT_ONCE_S


def test_endless_headers_are_closed(short_timeouts: Served) -> None:
    with many_connected(short_timeouts, 60, UNENDED) as socks:
        assert {sock.recv(100) for sock in socks} == {b""}


def test_headers_may_be_split_or_pipelined(served: Served) -> None:
    with connected(served) as sock:
        for piece in (WHOLE[:10], WHOLE[10:] + WHOLE, WHOLE[:-2], WHOLE[-2:]):
            sock.sendall(piece)
            time.sleep(0.1)
        sock.shutdown(socket.SHUT_WR)
        responses = b""
        while data := sock.recv(65_536):
            responses += data

    assert responses.count(b"HTTP/1.1 200 OK") == 3


def test_100_continue_comes_only_after_access_control(served: Served) -> None:
    head = b"POST /api/v1/upscale HTTP/1.1\r\nHost: here\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n"
    with connected(served) as sock:
        sock.sendall(head)
        assert sock.recv(100).startswith(b"HTTP/1.1 401 ")


class Inner:
    """A body like gunicorn's: a read returns only with all the requested bytes, or at the end."""

    def __init__(self, sock: socket.socket, length: int) -> None:
        self._file = sock.makefile("rb", buffering=0)
        self._left = length

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < min(size, self._left) and (more := self._file.read(min(size, self._left) - len(data))):
            data += more
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()


@pytest.mark.parametrize(("bytes_per_s", "least_per_s", "is_late"), [(2_000, 10_000.0, True), (40_000, 100.0, False)])
def test_body_must_arrive_at_a_minimum_pace(
    monkeypatch: pytest.MonkeyPatch, bytes_per_s: int, least_per_s: float, is_late: bool
) -> None:
    monkeypatch.setattr(timeouts, "BODY_GRACE_S", 0.5)
    monkeypatch.setattr(timeouts, "MIN_BODY_BYTES_PER_S", least_per_s)
    ours, theirs = socket.socketpair()
    length = 40_000
    if not is_late:
        # Its first read earns it 12 s (length / 2 body_timeout_s is the least pace), so that a sender which this
        # machine lets stall is in time, and it needs longer than the grace all the same.
        theirs.sendall(bytes(timeouts.FIRST_READ_BYTES))

    def drip() -> None:
        try:
            for _ in range(length * 20 // bytes_per_s):
                theirs.sendall(bytes(bytes_per_s // 20))
                time.sleep(0.05)
        except OSError:
            return

    outcome: list[Any] = []

    def app(environ: dict[str, Any], _: Any) -> list[bytes]:
        try:
            while data := environ["wsgi.input"].read(65_536):
                outcome.append(len(data))
        except TimeoutError as error:
            outcome.append(error)
        return []

    bodies = RequestBodyTimeout(
        cast("Any", app), SocketDeadlines(), body_timeout_s=60, idle_timeout_s=20, max_linger_bytes=0
    )
    sender = threading.Thread(target=drip)
    sender.start()
    inner = Inner(ours, length)
    environ = {"gunicorn.socket": ours, "wsgi.input": inner, "CONTENT_LENGTH": str(length)}
    response = bodies(environ, cast("Any", None))
    response.close()  # type: ignore[attr-defined]
    inner.close()
    ours.close()
    theirs.close()
    sender.join()

    if is_late:
        assert isinstance(outcome[-1], TimeoutError)
        assert sum(outcome[:-1]) < length, "it was over before the end of the body, which arrives within body_timeout_s"
    else:
        assert sum(outcome) == length


class SlowDeadlines(SocketDeadlines):
    """Records the time that the next item may take to be sent."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock  # type: ignore[assignment]
        self.timeout_s = 0.0

    def start(self, sock: socket.socket, seconds: float, how: int) -> timeouts.Deadline:
        self.timeout_s = seconds
        return timeouts.Deadline(sock, how, 0.0)

    def cancel(self, deadline: timeouts.Deadline) -> None: ...


def read_slowly(clock: ManualClock, item_s: float, *, work_s: float = 0.0) -> int:
    """Return how many seconds of a response of 300 s at the minimum pace are sent if each item takes `item_s`."""
    deadlines, sent = SlowDeadlines(clock), 0

    def app(*_request: Any) -> Iterator[bytes]:
        for _ in range(300):
            clock.now += work_s
            yield bytes(int(MIN_RESPONSE_BYTES_PER_S))

    responses = ResponseTimeout(cast("Any", app), deadlines, idle_timeout_s=20.0)
    try:
        for _ in responses({"gunicorn.socket": object()}, cast("Any", None)):
            if item_s > deadlines.timeout_s:
                return sent
            clock.now += item_s
            sent += 1
    except TimeoutError:
        return sent
    return sent


def test_response_must_be_read_at_a_minimum_pace(clock: ManualClock) -> None:
    assert read_slowly(clock, 1.0) == 300, "at the least pace it arrives"
    assert read_slowly(clock, 1.25) == 80, "more slowly it ends when the first 20 s are used up"
    assert read_slowly(clock, 20.5) == 0, "no item may take longer than the idle time"
    assert read_slowly(clock, 0.5, work_s=100.0) == 300, "time that we take ourselves is nobody's fault"
