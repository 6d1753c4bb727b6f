"""A file server that fails on demand: it aborts, stalls, sends slowly, or sends a wrong length or range."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """How the server responds; each list is consumed from its front."""

    data: bytes = b""
    statuses: list[int] = field(default_factory=list)
    """Statuses of the first responses, sent without the file."""
    break_after: list[int] = field(default_factory=list)
    """Number of bytes after which the connection is closed."""
    stall_after: list[int] = field(default_factory=list)
    """Number of bytes after which the server sends nothing more and keeps the connection open."""
    drips: bool = False
    """Sends one byte at a time, slower than any client waits."""
    ignores_range: bool = False
    wrong_range: bool = False
    sends_length: bool = True
    declared_length: int | None = None
    range_headers: list[str] = field(default_factory=list)
    """The Range header of each request; empty if there was none."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behaviour = behaviour
        self.released = threading.Event()
        """Set at the end of the test, to end all stalls."""

    def handle_error(self, *_: object) -> None:
        """Ignore clients that disconnect early: some tests cause it."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        behaviour = self.server.behaviour
        range_header = self.headers.get("Range", "")
        behaviour.range_headers.append(range_header)
        if behaviour.statuses:
            self.send_error(behaviour.statuses.pop(0))
            return
        rest, first, whole = behaviour.data, 0, len(behaviour.data)
        if range_header and not behaviour.ignores_range:
            first = int(re.fullmatch(r"bytes=(\d+)-", range_header)[1])  # type: ignore[index]
            rest = rest[first:]
            if not rest:
                self.send_error(416)
                return
            self.send_response(206)
            begin = first + 7 if behaviour.wrong_range else first
            self.send_header("Content-Range", f"bytes {begin}-{whole - 1}/{whole}")
        else:
            self.send_response(200)
        if behaviour.sends_length:
            length = len(rest) if behaviour.declared_length is None else behaviour.declared_length
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self._send_rest(rest)

    def _send_rest(self, rest: bytes) -> None:
        behaviour, released = self.server.behaviour, self.server.released
        self.close_connection = True
        if behaviour.drips:
            for byte in rest:
                self.wfile.write(bytes([byte]))
                if released.wait(0.02):
                    return
        elif behaviour.break_after:
            self.wfile.write(rest[: behaviour.break_after.pop(0)])
        elif behaviour.stall_after:
            self.wfile.write(rest[: behaviour.stall_after.pop(0)])
            self.wfile.flush()
            released.wait(120)
        else:
            self.wfile.write(rest)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def serve(behaviour: Behaviour) -> Iterator[str]:
    """Serve `behaviour.data` under every path; yield the folder's URL."""
    server = _Server(behaviour)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v0.0/"
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
