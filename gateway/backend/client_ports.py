"""The ports for clients of the embedded Triton. They stay open while it sleeps, boots or is replaced.

A TCP forwarder on loopback, as Knative's activator is in a cluster: the first bytes of a request wake the server, the
connection waits for the boot, and then its bytes are passed on. Triton checks its secrets by itself. One thread serves
all connections.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from gateway.backend.forwarded_connection import CHUNK_BYTES, ConnectionLimits, ForwardedConnection, Streams
from gateway.backend.open_requests import GrpcRequests, HttpRequests, InvalidRequestError, RequestFollower
from gateway.backend.triton_install import EmbeddedServerError

LOOPBACK = "127.0.0.1"
# Seconds between two attempts to reach a server, and between two looks at connections whose requests are to end.
POLL_INTERVAL_S = 0.1
_FOLLOWERS: dict[str, Callable[[], RequestFollower]] = {"grpc": GrpcRequests, "http": HttpRequests}

T = TypeVar("T")

_log = logging.getLogger(__name__)


class ClientPorts:
    """Forwards ports of this machine to those of the current server.

    Its methods may be called from any thread, one at a time. Without any port they do nothing.
    """

    def __init__(
        self, ports: Mapping[str, int], wake: Callable[[], None], limits: ConnectionLimits | None = None
    ) -> None:
        """`ports` are the ports to open, by protocol: grpc, http. One that is 0 is not opened.

        `wake` is called from the forwarder's thread and must return at once.
        """
        self._ports = {protocol: port for protocol, port in ports.items() if port}
        self._wake = wake
        self._limits = limits or ConnectionLimits()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # What follows belongs to the loop's thread.
        self._stop: asyncio.Event
        self._listeners: list[asyncio.Server] = []
        self._connections: set[ForwardedConnection] = set()
        self._target: asyncio.Future[Mapping[str, int]]  # has no result while there is no server
        self._refuses_until = 0.0

    def open(self) -> None:
        """Open the ports. Raises EmbeddedServerError, with the setting to change, when one cannot be opened."""
        sockets: dict[str, socket.socket] = {}
        try:
            for protocol, port in self._ports.items():
                sockets[protocol] = _listen(protocol, port)
        except EmbeddedServerError:
            for listener in sockets.values():
                listener.close()
            raise
        if sockets:
            is_running = threading.Event()
            self._thread = threading.Thread(
                target=lambda: asyncio.run(self._run(sockets, is_running)), name="triton-ports", daemon=True
            )
            self._thread.start()
            is_running.wait()

    def connect(self, target: Mapping[str, int]) -> None:
        """Pass connections on to these ports, by protocol: those that wait, and those to come."""
        self._call(lambda: self._target.set_result(target), without_ports=None)

    def has_open_request(self) -> bool:
        """Return whether a client sends a request, or waits for its response, or receives it."""
        return self._call(self._has_open_request, without_ports=False)

    def disconnect_if_idle(self) -> bool:
        """Close every connection unless a request is open, and return whether none was.

        Later requests wake the server and wait for `connect`.
        """

        def run() -> bool:
            if self._has_open_request():
                return False
            self._disconnect()
            return True

        return self._call(run, without_ports=True)

    def disconnect(self) -> None:
        """Close every connection that has a server: it is gone. Later requests wait for `connect`."""
        self._call(self._disconnect, without_ports=None)

    def refuse(self) -> None:
        """Close the connections that wait for a server that cannot boot. For a while, others do not wake it either."""

        def run() -> None:
            self._refuses_until = time.monotonic() + self._limits.refusal_s
            for connection in [each for each in self._connections if each.is_open() and not each.has_server]:
                self._close(connection)

        self._call(run, without_ports=None)

    def drain(self) -> None:
        """Close the ports and every idle connection, and each other one as soon as its request ends.

        Triton waits for the end of each HTTP connection, idle or not, before it ends.
        """

        def run() -> None:
            for listener in self._listeners:
                listener.close()
            self._close_idle()

        self._call(run, without_ports=None)

    def close(self) -> None:
        """Close the ports and every connection."""
        if self._thread is not None:
            self._call(self._stop.set, without_ports=None)
            self._thread.join()

    def _call(self, function: Callable[[], T], *, without_ports: T) -> T:
        """Run a function in the loop's thread and return its result; `without_ports` if it does not run."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(function())
            except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
                done.set_exception(error)

        if self._loop is None or self._loop.is_closed():
            return without_ports
        self._loop.call_soon_threadsafe(run)
        return done.result()

    async def _run(self, sockets: Mapping[str, socket.socket], is_running: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._target = self._loop.create_future()
        for protocol, listener in sockets.items():
            server = await asyncio.start_server(self._server_of(protocol), sock=listener, limit=CHUNK_BYTES)
            self._listeners.append(server)
        is_running.set()
        await self._stop.wait()
        for server in self._listeners:
            server.close()
        for connection in list(self._connections):
            self._close(connection)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(others, timeout=self._limits.linger_s) if others else None

    def _server_of(self, protocol: str) -> Callable[..., Coroutine[Any, Any, None]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = ForwardedConnection(_FOLLOWERS[protocol](), reader, writer, self._limits)
            try:
                if self._make_room():
                    self._connections.add(connection)
                    await self._forward(protocol, connection)
            except (OSError, TimeoutError, InvalidRequestError, asyncio.CancelledError) as error:
                _log.debug("a connection to Triton's %s port ended: %r", protocol, error)
            finally:
                self._connections.discard(connection)
                connection.close()

        return serve

    async def _forward(self, protocol: str, connection: ForwardedConnection) -> None:
        if await connection.read_first_request():
            await connection.exchange(*await connection.wait_for(self._connect_to_server(protocol)))

    async def _connect_to_server(self, protocol: str) -> Streams:
        """Return a connection to the server, after a boot if necessary. Raises ConnectionRefusedError."""
        while True:
            if not self._target.done():
                if time.monotonic() < self._refuses_until:
                    raise ConnectionRefusedError("the last boots failed")
                self._wake()
            target = await asyncio.shield(self._target)
            try:
                return await asyncio.open_connection(LOOPBACK, target[protocol], limit=CHUNK_BYTES)
            except OSError:  # it died just now, and another one will replace it
                await asyncio.sleep(POLL_INTERVAL_S)

    def _has_open_request(self) -> bool:
        return any(connection.is_open() for connection in self._connections)

    def _disconnect(self) -> None:
        if self._target.done():
            assert self._loop is not None  # noqa: S101 - this runs in it
            self._target = self._loop.create_future()
        for connection in [each for each in self._connections if each.has_server]:
            self._close(connection)

    def _close_idle(self) -> None:
        for connection in [each for each in self._connections if not (each.has_server and each.is_open())]:
            self._close(connection)
        if self._connections:
            assert self._loop is not None  # noqa: S101 - this runs in it
            self._loop.call_later(POLL_INTERVAL_S, self._close_idle)

    def _make_room(self) -> bool:
        """Return whether another connection is within the limit, after closing an idle one if necessary."""
        if len(self._connections) < self._limits.connections:
            return True
        idle = [each for each in self._connections if not each.is_open()]
        if not idle:
            _log.warning("A Triton client is turned away: %d connections are in use", len(self._connections))
            return False
        self._close(min(idle, key=lambda each: each.last_byte))
        return True

    def _close(self, connection: ForwardedConnection) -> None:
        self._connections.discard(connection)
        connection.close()


def _listen(protocol: str, port: int) -> socket.socket:
    try:
        return socket.create_server((LOOPBACK, port))
    except OSError as error:
        reason = "it is in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise EmbeddedServerError(
            f"Cannot open port {port} for Triton clients: {reason}. Stop the program that uses it, or set "
            f"SUPERRES_TRITON_{protocol.upper()}_PORT to another port (0: none)."
        ) from error
