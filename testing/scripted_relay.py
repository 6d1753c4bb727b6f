"""A server in front of a gateway that forwards requests, or responds itself, or cuts a response, as a test says."""

from __future__ import annotations

import http.client
import http.server
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

RELEASE_LIMIT_S = 120.0


@dataclass(frozen=True)
class Canned:
    """A response that does not come from the gateway."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cut:
    """Close the connection after so many bytes of the gateway's response."""

    body_bytes: int
    when: threading.Event | None = None
    """Close it when this is set."""


@dataclass
class ScriptedRelay:
    """The relay. Each request takes the next action of its kind; without one, it is forwarded."""

    port: int
    posts: list[Canned | Cut]
    gets: list[Canned | Cut]
    downloads: list[Canned | Cut] = field(default_factory=list)
    """Actions for GET of a stored result, or of the result of a job."""
    requests: list[str] = field(default_factory=list)
    """Method and target of each request that arrived."""
    idempotency_keys: list[str] = field(default_factory=list)
    """Idempotency-Key of each request that has one."""
    ranges: list[str] = field(default_factory=list)
    """The header Range of each request that had one."""


@contextmanager
def relaying(port: int, *, certificate: tuple[Path, Path] | None = None) -> Iterator[ScriptedRelay]:
    """Relay to a port of this machine until the block ends; with a certificate and its key by TLS."""
    relay = ScriptedRelay(0, [], [])

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            actions = relay.downloads if re.search("/results?(/|$)", self.path) else relay.gets
            self._relay(actions.pop(0) if actions else None)

        def do_DELETE(self) -> None:
            self._relay(None)

        def do_POST(self) -> None:
            self._relay(relay.posts.pop(0) if relay.posts else None)

        def _relay(self, action: Canned | Cut | None) -> None:
            relay.requests.append(f"{self.command} {self.path}")
            relay.idempotency_keys += self.headers.get_all("Idempotency-Key") or []
            relay.ranges += self.headers.get_all("Range", [])
            self.close_connection = True
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if isinstance(action, Canned):
                self.send_response(action.status)
                for name, value in {**action.headers, "Content-Length": str(len(action.body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(action.body)
                return
            path = self.path if self.path.startswith("/") else "/" + self.path.split("/", 3)[3]
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            connection.request(self.command, path, body, dict(self.headers))
            response = connection.getresponse()
            data = response.read()
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length", "server", "date"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: action.body_bytes] if action else data)
            if action and action.when:
                action.when.wait(RELEASE_LIMIT_S)
            connection.close()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that refuses the certificate
    relay.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
