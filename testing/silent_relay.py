"""A TCP relay in front of a server, which can go silent as a NAT, a balancer or a dead node does."""

from __future__ import annotations

import contextlib
import socket
import threading


class SilentRelay:
    """Listens on loopback and forwards each connection to one address, until its connections go silent."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        # Set for the connections of one generation when they go silent.
        self._is_silent = threading.Event()
        self.connections = 0
        own_host, own_port = self._listening.getsockname()
        self.address = f"{own_host}:{own_port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def go_silent(self) -> None:
        """Forward nothing more on the present connections, and close none of them. New connections work."""
        with self._lock:
            self._is_silent.set()
            self._is_silent = threading.Event()

    def close(self) -> None:
        """Close every connection."""
        self._listening.close()
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                try:
                    server = socket.create_connection(self._target)
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self.connections += 1
                    self._open += [client, server]
                    is_silent = self._is_silent
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=_forward, args=(source, sink, is_silent), daemon=True).start()


def _forward(source: socket.socket, sink: socket.socket, is_silent: threading.Event) -> None:
    """Forward bytes until one side closes; once silent, swallow them and hide that a side closed."""
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            if not is_silent.is_set():
                sink.sendall(data)
    if not is_silent.is_set():
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
