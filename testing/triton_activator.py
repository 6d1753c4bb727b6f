"""A TCP proxy in front of a sleeping server, like Knative's activator: a connection starts the server and waits."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

from gateway.backend.triton_process import TritonProcess
from testing.triton import BOOT_LIMIT_S


class TcpActivator:
    """Listens on loopback, starts a Triton for the first connection and forwards bytes both ways."""

    def __init__(self, start: Callable[[], TritonProcess]) -> None:
        self._start = start
        self._waking = threading.Lock()
        self._server: TritonProcess | None = None
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.boots = 0
        host, port = self._listening.getsockname()
        self.address = f"{host}:{port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def put_to_sleep(self) -> None:
        """Stop the server and close every connection, as scaling to zero does."""
        with self._waking:
            if self._server:
                self._server.stop()
            self._server = None
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        self._listening.close()
        self.put_to_sleep()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._waking:
            if self._server is None:
                self.boots += 1
                self._server = self._start()
                self._server.wait_until_ready(time.monotonic() + BOOT_LIMIT_S)
            host, _, port = self._server.grpc_address.partition(":")
        try:
            server = socket.create_connection((host, int(port)))
        except OSError:  # it has been put to sleep
            client.close()
            return
        self._open.append(server)
        threading.Thread(target=_pass_on, args=(server, client), daemon=True).start()
        _pass_on(client, server)


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for each in (source, sink):
        each.close()
