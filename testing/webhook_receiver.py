"""A receiver of webhooks on a free loopback port: checks each signature and responds as a test asks."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

Respond = Callable[["Message"], int | Iterable[bytes]]
"""Takes a message and returns the status to respond with, or the parts of a raw response."""


@dataclass(frozen=True)
class Message:
    """One POST."""

    path: str
    headers: dict[str, str]
    """By name in lower case."""
    body: bytes = field(repr=False)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def status(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.body)
        return read


@dataclass
class Receiver:
    """What has arrived."""

    port: int = 0
    scheme: str = "http"
    host: str = "127.0.0.1"
    messages: list[Message] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}/hook?secret=s3cret"

    @property
    def authority(self) -> str:
        return f"{self.host}:{self.port}"


def is_signed_by(message: Message, public_key: str) -> bool:
    """Return whether one of the signatures is that of a public key (`whpk_...`), as Standard Webhooks says."""
    key = VerifyKey(base64.b64decode(public_key.removeprefix("whpk_")))
    signed = f"{message.id}.{message.headers['webhook-timestamp']}.".encode() + message.body
    for signature in message.headers["webhook-signature"].split(" "):
        version, _, encoded = signature.partition(",")
        assert version == "v1a"
        try:
            key.verify(signed, base64.b64decode(encoded))
        except BadSignatureError:
            continue
        return True
    return False


def status_200(_: Message) -> int:
    return 200


@contextmanager
def receiving(
    respond: Respond = status_200, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[Receiver]:
    """Receive webhooks until the block ends."""
    receiver = Receiver(scheme="https" if tls else "http", host=host)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            message = Message(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            with lock:
                receiver.messages.append(message)
            response = respond(message)
            if not isinstance(response, int):
                for part in response:
                    self.wfile.write(part)
                return
            self.send_response(response)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is that of the class
            del format, args

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def get_request(self) -> tuple[Any, Any]:
            found = super().get_request()
            receiver.connections += 1
            return found

        def handle_error(self, request: Any, client_address: Any) -> None:
            del request, client_address  # a client that closes the connection, or rejects the certificate

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    receiver.port = int(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
