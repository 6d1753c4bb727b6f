"""The log of a real server under clients that try to write into it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.access.api_keys import ApiKeyStore
from testing.raw_http import LIMIT_S, connected, post_headers, read_response
from testing.requests import PHOTO
from testing.server import Served, serving

FORGED = '{"logger": "gateway.request", "client": "forged"}'


def lines_of_requests(server: Served, count: int) -> list[dict[str, Any]]:
    """Return the lines of requests once there are `count`; fail if any line of the log is not one JSON object."""
    end = time.monotonic() + LIMIT_S
    while True:
        lines = [json.loads(line) for line in server.log().splitlines()]
        assert all(isinstance(line, dict) for line in lines)
        found = [line for line in lines if line["logger"] == "gateway.request"]
        if len(found) >= count:
            return found
        assert time.monotonic() < end, f"{len(found)} lines, expected {count}"
        time.sleep(0.05)


def send(server: Served, data: bytes) -> int:
    with connected(server) as sock:
        sock.sendall(data)
        return read_response(sock)[0]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("logs")) as server:
        yield server


def test_malformed_request_has_a_line_with_its_problem(quiet: Served) -> None:
    before = len(lines_of_requests(quiet, 0))
    statuses = [
        send(quiet, b"GET / HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n"),
        send(quiet, b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * 9_000 + b"\r\n\r\n"),
    ]
    assert statuses == [400, 431]

    lines = lines_of_requests(quiet, before + 2)[before:]
    assert [(line["status"], line["problem"], line["cause"]) for line in lines] == [
        (400, "bad-request", "InvalidHeaderName"),
        (431, "head-too-long", "LimitRequestHeaders"),
    ]
    assert {line["address"] for line in lines} == {"127.0.0.0/24"}


def test_hostile_requests_forge_no_line(quiet: Served) -> None:
    key = ApiKeyStore(quiet.state_dir / "keys.json").new("tests")
    before = len(lines_of_requests(quiet, 0))
    breaks = ("\n", "\r", "\r\n ", "\x00", "\x1b[2J", "\u2028", "%0a", "\\n")
    requests = [
        post_headers(key, f"{name}: a{text}{FORGED}", f"Content-Length: {len(PHOTO)}") + PHOTO
        for text in breaks
        for name in ("X-API-Key", "Authorization", "User-Agent", "X-Forwarded-For", "Content-Type", "Accept")
    ]
    requests += [
        f"{FORGED[:15]}{'M' * 30} / HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
        f"GET /%0a{FORGED.replace(' ', '')}?{'q' * 2_000} HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\nHost: {FORGED}\r\n\r\n".encode(),
        post_headers(key, f"Content-Length: {len(PHOTO)}", path=f"/api/v1/upscale?variant=%0a{'v' * 900}") + PHOTO,
    ]
    for request in requests:
        send(quiet, request)

    lines = lines_of_requests(quiet, before + len(requests))[before:]
    assert len(lines) == len(requests)
    assert {line.get("client") for line in lines} <= {"tests", "(anonymous)", None}
    text = quiet.log()
    assert "forged" not in text
    assert max(map(len, text.splitlines())) < 1_000
