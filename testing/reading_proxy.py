"""A reverse proxy that treats request bodies as Go's servers do, and with them Knative's queue-proxy and activator.

Go's net/http reads the rest of a request's body, up to 256 KiB, before it writes a response that came early. So a
client that announces a body and sends none keeps its place in the proxy, although the server behind has responded.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ReadingProxy:
    """Listens on loopback and forwards at most `max_requests` at a time, as `containerConcurrency`; 0: any number."""

    def __init__(self, port: int, *, max_requests: int = 0) -> None:
        places = threading.Semaphore(max_requests) if max_requests else contextlib.nullcontext()
        self.early_responses = threading.Semaphore(0)
        """Released for each response that arrived from the server while the body was still awaited."""
        early_responses = self.early_responses

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with places:
                    self._forward()

            do_POST = do_GET  # noqa: N815

            def _forward(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as server:
                    server.putrequest(self.command, self.path, skip_host=True)
                    for name, value in self.headers.items():
                        server.putheader(name, value)
                    server.endheaders()
                    response = server.getresponse() if length else None
                    if response is not None:
                        early_responses.release()
                    body = self.rfile.read(length)  # before the response is passed on
                    if len(body) < length:
                        self.close_connection = True
                        return
                    response = response or server.getresponse()
                    data = response.read()
                self.send_response(response.status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = _ThreadedProxyServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End the proxy; the connections that are open end with their clients."""
        self._server.shutdown()
        self._server.server_close()


class _ThreadedProxyServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = socket.SOMAXCONN
    block_on_close = False
