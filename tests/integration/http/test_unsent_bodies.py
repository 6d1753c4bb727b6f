"""Clients that announce a body and send none, behind a proxy that reads bodies as Go's servers do."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from testing.reading_proxy import ReadingProxy
from testing.server import Served

LIMIT_S = 120.0
# One more than the limit that the gateway's service had before, and than usual limits.
SILENT = 61


@contextmanager
def proxied(server: Served, *, max_requests: int) -> Iterator[ReadingProxy]:
    with closing(ReadingProxy(server.port, max_requests=max_requests)) as proxy:
        yield proxy


def go_silent(proxy: ReadingProxy) -> socket.socket:
    """Announce a body without an API key, and send none of it."""
    sock = socket.create_connection(("127.0.0.1", proxy.port), timeout=LIMIT_S)
    sock.sendall(b"POST /api/v1/upscale HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n")
    return sock


def read_health(proxy: ReadingProxy, timeout_s: float) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=timeout_s)) as connection:
        connection.request("GET", "/healthz")
        return connection.getresponse().status


@pytest.fixture
def clients() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_silent_clients_do_not_take_the_gateway_away(served: Served, clients: ExitStack) -> None:
    with proxied(served, max_requests=0) as proxy:
        for _ in range(SILENT):
            clients.enter_context(go_silent(proxy))
        for _ in range(SILENT):
            assert proxy.early_responses.acquire(timeout=LIMIT_S), "the gateway waited for the body"

        assert read_health(proxy, LIMIT_S) == 200
        clients.close()


def test_a_limit_of_the_proxy_would_let_silent_clients_take_all_places(served: Served, clients: ExitStack) -> None:
    """Shows that the proxy above has the fault for which the gateway's service has no limit."""
    with proxied(served, max_requests=SILENT - 1) as proxy:
        for _ in range(SILENT - 1):
            clients.enter_context(go_silent(proxy))
        for _ in range(SILENT - 1):
            assert proxy.early_responses.acquire(timeout=LIMIT_S)

        with pytest.raises(TimeoutError):
            read_health(proxy, 1.0)

        clients.close()
        with closing(ReadingProxy(served.port)) as other:
            assert read_health(other, LIMIT_S) == 200
