"""Speaks HTTP to a gateway over a plain socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

from testing.server import Served

LIMIT_S = 120.0
Response = tuple[int, dict[str, str], bytes]


@contextmanager
def connected(server: Served) -> Iterator[socket.socket]:
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S)) as sock:
        yield sock


@contextmanager
def reserve_port() -> Iterator[int]:
    """Reserve a port. Only a server that sets SO_REUSEADDR, as the metrics server does, can bind it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


def read_response(sock: socket.socket) -> Response:
    """Read one response: status, headers by lower-case name, body."""
    file = sock.makefile("rb")
    status = int(file.readline().split()[1])
    headers: dict[str, str] = {}
    while line := file.readline().strip():
        name, _, value = line.decode().partition(": ")
        headers[name.lower()] = value
    return status, headers, file.read(int(headers["content-length"]))


def read_problem_slug(response: Response) -> tuple[int, str]:
    status, headers, body = response
    assert headers["content-type"] == "application/problem+json", body
    problem = json.loads(body)
    assert problem["status"] == status
    assert problem["request_id"] == headers["x-request-id"]
    return status, problem["type"].removeprefix("/problems/")


def post_headers(key: str, *lines: str, path: str = "/api/v1/upscale") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: here", f"X-API-Key: {key}", *lines, "", ""]).encode()


BOUNDARY = "boundary"


Request = tuple[str, bytes, dict[str, str]]
"""Path, body, headers."""


def multipart(*parts: bytes, boundary: str = BOUNDARY) -> Request:
    body = b"".join(b"--" + BOUNDARY.encode() + b"\r\n" + part + b"\r\n" for part in parts)
    return (
        "/api/v1/upscale",
        body + b"--" + BOUNDARY.encode() + b"--\r\n",
        {"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
