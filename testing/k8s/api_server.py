"""A stand-in of a Kubernetes API server for kubectl: serves stored objects by path, and Kubernetes' 404 and 403."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class ApiServer(ThreadingHTTPServer):
    """Answers GET, stores what is created by POST, and refuses every other method."""

    daemon_threads = True

    def __init__(self, objects: dict[str, Any], forbidden: set[str]) -> None:
        super().__init__(("127.0.0.1", 0), _ApiHandler)
        self.objects = objects
        self.forbidden = forbidden
        self.methods: list[str] = []
        self.paths: list[str] = []


class _ApiHandler(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.paths.append(path)
        self.server.methods.append("GET")
        if path in self.server.forbidden:
            self._send(403, _status("Forbidden", 403, f'"{path}" is forbidden: User "me" cannot get it'))
        elif path in self.server.objects:
            self._send(200, self.server.objects[path])
        else:
            self._send(404, _status("NotFound", 404, f'"{path}" not found'))

    def do_POST(self) -> None:
        self.server.methods.append("POST")
        created = json.loads(self._body())
        path = f"{urlsplit(self.path).path}/{created['metadata']['name']}"
        if path in self.server.objects:
            self._send(409, _status("AlreadyExists", 409, f'"{path}" already exists'))
        else:
            self.server.objects[path] = created
            self._send(201, created)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while length := int(self.rfile.readline(), 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _other(self) -> None:
        self.server.methods.append(self.command)
        self._send(405, _status("MethodNotAllowed", 405, "this server neither changes nor deletes"))

    do_PUT = do_PATCH = do_DELETE = _other  # noqa: N815 - http.server's names

    def _send(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the output of the tests clean."""


def _status(reason: str, code: int, message: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "code": code,
        "message": message,
    }


@contextmanager
def serve_api(objects: dict[str, Any], forbidden: set[str]) -> Iterator[ApiServer]:
    """Serve `objects`, by API path, until the block ends."""
    server = ApiServer(objects, forbidden)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_kubeconfig(path: Path, port: int) -> Path:
    """Write a configuration of kubectl with the one context "test"; return its path."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "me"}}],
        "users": [{"name": "me", "user": {}}],
    }
    path.write_text(json.dumps(document))
    return path
