"""The server with a real gunicorn and clients that violate HTTP or the limits."""

from __future__ import annotations

import contextlib
import socket
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest

from gateway.access.api_keys import ApiKeyStore
from gateway.config.settings import Settings
from gateway.server import ServeError, bind
from testing import images
from testing.data import decode_pixels
from testing.raw_http import LIMIT_S, connected, post_headers, read_problem_slug, read_response
from testing.requests import PHOTO
from testing.server import Served, serving

NOISE = images.encode_png(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def served_key(served: Served) -> str:
    return ApiKeyStore(served.state_dir / "keys.json").new("tests")


@pytest.fixture(scope="module")
def short_timeouts_key(short_timeouts: Served) -> str:
    return ApiKeyStore(short_timeouts.state_dir / "keys.json").new("tests")


def test_server_prints_one_line_and_responds(served: Served, served_key: str) -> None:
    connection = HTTPConnection("127.0.0.1", served.port, timeout=LIMIT_S)
    connection.request("POST", "/api/v1/upscale", PHOTO, {"X-API-Key": served_key})
    response = connection.getresponse()
    response.read()
    connection.close()

    assert served.first_line == f"Serverless SuperRes is ready at http://127.0.0.1:{served.port}\n"
    assert (response.status, response.headers["X-Superres-Size"]) == (200, "128x96")


def wait_for_log(server: Served, text: str) -> None:
    end = time.monotonic() + LIMIT_S
    while text not in server.log():
        assert time.monotonic() < end, f"the log never said {text}"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("path", "route"),
    [("/static/x/page.css", "/static/<version>/<path:filename>"), ("/favicon.ico", "/favicon.ico"), ("/", "/")],
)
def test_response_is_logged_after_it_is_sent(served: Served, path: str, route: str) -> None:
    with connected(served) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        status, headers, body = read_response(sock)

    wait_for_log(served, f'"request_id": "{headers["x-request-id"]}", "method": "GET", "route": "{route}"')
    assert (status, len(body)) == (200, int(headers["content-length"]))


def test_stalled_body_ends_in_408(short_timeouts: Served, short_timeouts_key: str) -> None:
    with connected(short_timeouts) as sock:
        sock.sendall(post_headers(short_timeouts_key, "Content-Length: 1000") + b"\x89PNG")

        assert read_problem_slug(read_response(sock)) == (408, "slow-body")


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
def test_slow_body_ends_in_408(short_timeouts: Served, short_timeouts_key: str, framing: str) -> None:
    """Each byte arrives within idle_timeout_s (1 s), the body does not within body_timeout_s (2 s)."""
    with connected(short_timeouts) as sock:
        sock.sendall(post_headers(short_timeouts_key, framing))
        sock.settimeout(0.1)
        drip, end = b"1\r\nx\r\n" if "chunked" in framing else b"x", time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            sock.sendall(drip)
            try:
                sock.recv(1, socket.MSG_PEEK)
                break
            except TimeoutError:
                continue
        else:
            pytest.fail("the gateway went on waiting for as long as the body dripped")
        sock.settimeout(LIMIT_S)

        assert read_problem_slug(read_response(sock)) == (408, "slow-body")


def test_content_length_over_limit_returns_413_at_once(served: Served, served_key: str) -> None:
    with connected(served) as sock:
        sock.sendall(post_headers(served_key, "Content-Length: 300001"))

        assert read_problem_slug(read_response(sock)) == (413, "too-many-bytes")


def test_client_that_sends_first_gets_413(served: Served, served_key: str) -> None:
    """As browsers do. The body is larger than the limit (300,000) and smaller than what is discarded (1,200,000)."""
    with connected(served) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)  # so that the server has read the body
        sock.sendall(post_headers(served_key, "Content-Length: 1200000"))
        for _ in range(120):
            sock.sendall(bytes(10_000))

        assert read_problem_slug(read_response(sock)) == (413, "too-many-bytes")


def test_client_that_sends_first_gets_401_without_key(served: Served) -> None:
    with connected(served) as sock:
        sock.sendall(post_headers("", f"Content-Length: {len(NOISE)}") + NOISE)

        assert read_problem_slug(read_response(sock)) == (401, "key-required")


def test_blocked_client_is_closed_with_its_body_unread(tmp_path: Path) -> None:
    """Many times, because the race is rare: 1 of 80 bodies was read after the socket's reading side was shut down."""
    announced, max_sent = 90_000_000, 0
    (tmp_path / "blocks.txt").write_text("203.0.113.0/24  # scraper\n")
    with serving(tmp_path, SUPERRES_TRUSTED_HOPS="1", SUPERRES_MAX_UPLOAD_BYTES="100000000") as server:
        for number in range(300):
            with connected(server) as sock:
                sock.sendall(post_headers("", "X-Forwarded-For: 203.0.113.9", f"Content-Length: {announced}"))
                response = read_response(sock)
                time.sleep(number % 40 * 50e-6)
                sent, piece = 0, bytes(1_000_000)
                with contextlib.suppress(ConnectionError):  # the server closes the connection
                    while sent < announced:
                        sent += sock.send(piece)
            assert read_problem_slug(response) == (403, "blocked")
            max_sent = max(max_sent, sent)

    assert max_sent < announced / 2, "as much as the kernel's buffers hold may be taken, never the body"


def test_chunked_body_is_accepted(served: Served, served_key: str) -> None:
    with connected(served) as sock:
        sock.sendall(post_headers(served_key, "Transfer-Encoding: chunked"))
        for start in range(0, len(PHOTO), 100):
            part = PHOTO[start : start + 100]
            sock.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        sock.sendall(b"0\r\n\r\n")

        status, headers, _ = read_response(sock)
        assert (status, headers["x-superres-size"]) == (200, "128x96")


def test_long_response_is_sent_in_chunks_where_a_setting_asks_for_it(tmp_path: Path) -> None:
    with serving(tmp_path, SUPERRES_MAX_CONTENT_LENGTH_BYTES="1000") as server:
        key = ApiKeyStore(tmp_path / "keys.json").new("tests")
        with closing(HTTPConnection("127.0.0.1", server.port, timeout=LIMIT_S)) as connection:
            connection.request("POST", "/api/v1/upscale", PHOTO, {"X-API-Key": key})
            response = connection.getresponse()
            assert response.headers["Transfer-Encoding"] == "chunked"
            assert "Content-Length" not in response.headers
            assert decode_pixels(response.read()).shape == (96, 128, 3)

            connection.request("GET", "/healthz")
            assert "Content-Length" in connection.getresponse().headers, "a short response keeps its length"


def test_chunked_body_over_the_limit_gets_413(served: Served, served_key: str) -> None:
    with connected(served) as sock:
        sock.sendall(post_headers(served_key, "Transfer-Encoding: chunked"))
        png = images.insert_png_chunk(PHOTO, b"teSt", bytes(300_000))
        sock.sendall(f"{len(png):x}\r\n".encode() + png + b"\r\n0\r\n\r\n")

        assert read_problem_slug(read_response(sock)) == (413, "too-many-bytes")


@pytest.mark.parametrize("chunk", [b"zz\r\nabc\r\n", b"5\r\nabcdefgh\r\n", b"-1\r\n"])
def test_malformed_chunks_get_400(served: Served, served_key: str, chunk: bytes) -> None:
    with connected(served) as sock:
        sock.sendall(post_headers(served_key, "Transfer-Encoding: chunked") + chunk)

        assert read_problem_slug(read_response(sock)) == (400, "incomplete-body")


def test_body_shorter_than_its_length_is_400(served: Served, served_key: str) -> None:
    with connected(served) as sock:
        sock.sendall(post_headers(served_key, f"Content-Length: {len(PHOTO) + 1}") + PHOTO)
        sock.shutdown(socket.SHUT_WR)

        assert read_problem_slug(read_response(sock)) == (400, "incomplete-body")


def test_too_small_content_length_spoils_only_itself(served: Served, served_key: str) -> None:
    with connected(served) as sock:
        sock.sendall(post_headers(served_key, f"Content-Length: {len(PHOTO) - 20}") + PHOTO)

        assert read_problem_slug(read_response(sock)) == (422, "unreadable-image")


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5, 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: deflate\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_invalid_http_gets_a_problem(served: Served, request_: bytes) -> None:
    with connected(served) as sock:
        sock.sendall(request_)

        assert read_problem_slug(read_response(sock)) == (400, "bad-request")


@pytest.mark.parametrize(
    "head", [b"HEAD / HTTP/1.1\r\nBad Header: x\r\n\r\n", b"HEAD / HTTP/1.1\r\nX: " + b"a" * 40_000]
)
def test_rejected_head_request_gets_no_body(served: Served, head: bytes) -> None:
    with connected(served) as sock:
        sock.sendall(head)
        response = b""
        with contextlib.suppress(ConnectionResetError):  # the unread rest
            while data := sock.recv(65_536):
                response += data

    assert response.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
    assert response.endswith(b"\r\n\r\n")


def test_http_1_0_gets_no_100_continue(served: Served, served_key: str) -> None:
    request_headers = post_headers(served_key, "Expect: 100-continue", f"Content-Length: {len(PHOTO)}").replace(
        b"HTTP/1.1", b"HTTP/1.0"
    )
    with connected(served) as sock:
        sock.sendall(request_headers + PHOTO)

        assert sock.recv(12) == b"HTTP/1.0 200"


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 8_000,
    ],
    ids=["line", "header", "all of them, without an end"],
)
def test_too_long_headers_are_rejected_at_once(served: Served, request_: bytes) -> None:
    with connected(served) as sock:
        sock.sendall(request_)

        assert read_problem_slug(read_response(sock)) == (431, "head-too-long")


def test_connection_is_reused_after_a_rejection(served: Served, served_key: str) -> None:
    with connected(served) as sock:
        statuses = []
        for key, data in ((served_key, PHOTO), ("wrong", PHOTO), (served_key, b"text"), (served_key, PHOTO)):
            sock.sendall(post_headers(key, f"Content-Length: {len(data)}") + data)
            statuses.append(read_response(sock)[0])

    assert statuses == [200, 401, 415, 200]


def test_idle_connection_is_closed_after_keepalive_s(tmp_path: Path) -> None:
    with serving(tmp_path, SUPERRES_KEEPALIVE_S="1") as server, connected(server) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
        assert read_response(sock)[0] == 200

        assert sock.recv(1) == b"", "closed by the server: LIMIT_S of waiting would raise TimeoutError"


def test_idle_connection_stays_open_longer_than_those_of_balancers() -> None:
    """nginx and AWS close idle connections to an upstream after 60 s unless set otherwise."""
    assert Settings().keepalive_s > 60


def test_client_that_does_not_read_is_dropped(tmp_path: Path) -> None:
    with serving(tmp_path, SUPERRES_IDLE_TIMEOUT_S="3", SUPERRES_LOG_LEVEL="debug") as server:
        key = ApiKeyStore(tmp_path / "keys.json").new("tests")
        data = images.encode_png(np.random.default_rng(0).integers(0, 256, (1_000, 1_000, 3), dtype=np.uint8))
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.settimeout(LIMIT_S)
        with closing(sock):
            sock.connect(("127.0.0.1", server.port))
            sock.sendall(post_headers(key, f"Content-Length: {len(data)}") + data)
            wait_for_log(
                server, "a client read its response too slowly"
            )  # unless the response fits into the socket buffers
        assert "Traceback" not in server.log()


def test_port_in_use_has_a_clear_error(tmp_path: Path, served: Served) -> None:
    with pytest.raises(AssertionError) as caught, serving(tmp_path, SUPERRES_PORT=str(served.port)):
        pass

    assert f"superres: Cannot listen on 127.0.0.1 port {served.port}: the port is in use" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_foreign_bind_address_has_a_clear_error() -> None:
    with pytest.raises(ServeError, match=r"Cannot listen on 192\.0\.2\.1 port 0: .* Set SUPERRES_HOST"):
        bind("192.0.2.1", 0)
