"""The ports for Triton clients, with plain sockets and a small gRPC server behind them."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from gateway.backend.client_ports import ClientPorts
from gateway.backend.forwarded_connection import CHUNK_BYTES, ConnectionLimits
from gateway.backend.open_requests import MAX_HELD_BYTES
from gateway.backend.triton_install import EmbeddedServerError
from testing.ports import find_free_port

LIMIT_S = 120.0
REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Forwarder:
    """Open ports, and what they asked for."""

    def __init__(self, protocol: str, limits: ConnectionLimits) -> None:
        self.port = find_free_port()
        self.wakes = 0
        self.woken = threading.Event()
        self.ports = ClientPorts({protocol: self.port}, self._wake, limits)
        self.ports.open()

    def _wake(self) -> None:
        self.wakes += 1
        self.woken.set()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT_S)

    def is_connected_idle(self) -> bool:
        return not self.ports.has_open_request()


@contextmanager
def forwarding(protocol: str = "http", limits: ConnectionLimits | None = None) -> Iterator[Forwarder]:
    running = Forwarder(protocol, limits or ConnectionLimits())
    try:
        yield running
    finally:
        running.ports.close()


@pytest.fixture
def forwarder() -> Iterator[Forwarder]:
    with forwarding() as running:
        yield running


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT_S)
        yield listener


def target(server: socket.socket) -> dict[str, int]:
    return {"http": server.getsockname()[1], "grpc": server.getsockname()[1]}


def accept(server: socket.socket) -> socket.socket:
    connection, _ = server.accept()
    connection.settimeout(LIMIT_S)
    return connection


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes; nothing more after a reset."""
    received = b""
    try:
        while data := connection.recv(CHUNK_BYTES):
            received += data
    except ConnectionResetError:
        pass
    return received


def read_exactly(connection: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count and (data := connection.recv(count - len(received))):
        received += data
    return bytes(received)


def test_request_wakes_the_server_and_waits_for_it(forwarder: Forwarder, server: socket.socket) -> None:
    with forwarder.connect() as client:
        client.sendall(REQUEST)
        assert forwarder.woken.wait(LIMIT_S)
        assert forwarder.ports.has_open_request()
        forwarder.ports.connect(target(server))
        with accept(server) as upstream:
            assert upstream.recv(1000) == REQUEST
            upstream.sendall(RESPONSE)
            assert client.recv(1000) == RESPONSE
            wait_for(forwarder.is_connected_idle)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_connection_without_a_request_wakes_nothing_and_is_closed(protocol: str) -> None:
    with forwarding(protocol, ConnectionLimits(first_request_s=0.2)) as forwarder, forwarder.connect() as client:
        client.sendall(b"GET" if protocol == "http" else b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert not forwarder.ports.has_open_request()
        read_all(client)
        assert forwarder.wakes == 0


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_another_protocol_wakes_nothing_and_is_closed(protocol: str) -> None:
    with forwarding(protocol) as forwarder, forwarder.connect() as client:
        client.sendall(b"\x16\x03\x01\x02\x00\n" * MAX_HELD_BYTES)
        read_all(client)
        assert forwarder.wakes == 0


def test_client_that_resets_its_connection_is_not_waited_for(forwarder: Forwarder) -> None:
    with forwarder.connect() as client:
        client.sendall(REQUEST)
        assert forwarder.woken.wait(LIMIT_S)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(forwarder.is_connected_idle)


def test_request_waits_for_the_server_no_longer_than_a_boot() -> None:
    with forwarding(limits=ConnectionLimits(boot_s=0.2)) as forwarder, forwarder.connect() as client:
        client.sendall(REQUEST)
        assert read_all(client) == b""
        assert forwarder.wakes == 1


def test_large_bodies_pass_both_ways_to_slow_readers(forwarder: Forwarder, server: socket.socket) -> None:
    forwarder.ports.connect(target(server))
    body = bytes(range(256)) * 40_000  # 10 MB: more than all buffers on the way
    with forwarder.connect() as client, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(client.sendall, REQUEST + body)
        with accept(server) as upstream:
            assert read_exactly(upstream, len(REQUEST)) == REQUEST
            assert not sending.done(), "the sender waits for its reader"
            assert read_exactly(upstream, len(body)) == body
            sending.result(LIMIT_S)
            answering = pool.submit(upstream.sendall, RESPONSE + body)
            assert read_exactly(client, len(RESPONSE)) == RESPONSE
            assert forwarder.ports.has_open_request(), "its response is being read"
            assert read_exactly(client, len(body)) == body
            answering.result(LIMIT_S)


def test_either_side_may_close_its_direction_first(forwarder: Forwarder, server: socket.socket) -> None:
    forwarder.ports.connect(target(server))
    with forwarder.connect() as client:
        client.sendall(REQUEST)
        client.shutdown(socket.SHUT_WR)
        with accept(server) as upstream:
            assert read_all(upstream) == REQUEST
            upstream.sendall(RESPONSE)
        assert read_all(client) == RESPONSE
    with forwarder.connect() as client:
        client.sendall(REQUEST)
        with accept(server) as upstream:
            assert upstream.recv(1000) == REQUEST
            upstream.sendall(RESPONSE)
        assert read_all(client) == RESPONSE


def test_client_that_leaves_is_noticed_by_the_server(forwarder: Forwarder, server: socket.socket) -> None:
    forwarder.ports.connect(target(server))
    with forwarder.connect() as client:
        client.sendall(REQUEST)
        upstream = accept(server)
        assert upstream.recv(1000) == REQUEST
    with upstream:
        assert read_all(upstream) == b""


def test_idle_connections_are_closed_for_sleep_and_open_requests_prevent_it(
    forwarder: Forwarder, server: socket.socket
) -> None:
    forwarder.ports.connect(target(server))
    with forwarder.connect() as client:
        client.sendall(REQUEST)
        with accept(server) as upstream:
            assert upstream.recv(1000) == REQUEST
            assert not forwarder.ports.disconnect_if_idle()
            upstream.sendall(RESPONSE)
            assert client.recv(1000) == RESPONSE
            wait_for(forwarder.ports.disconnect_if_idle)
            assert read_all(upstream) == b""
        assert read_all(client) == b""
    assert forwarder.wakes == 0
    with forwarder.connect() as client:
        client.sendall(REQUEST)
        assert forwarder.woken.wait(LIMIT_S)


def test_server_that_dies_is_replaced_under_the_open_port(forwarder: Forwarder, server: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as dead:
        forwarder.ports.connect(target(dead))
    with forwarder.connect() as client:  # nobody has noticed yet that nothing listens there
        client.sendall(REQUEST)
        wait_for(forwarder.ports.has_open_request)
        forwarder.ports.disconnect()
        assert forwarder.woken.wait(LIMIT_S)
        forwarder.ports.connect(target(server))
        with accept(server) as upstream:
            assert upstream.recv(1000) == REQUEST
            forwarder.ports.disconnect()
        assert read_all(client) == b""


def test_failed_boots_close_the_waiting_and_for_a_while_nobody_wakes() -> None:
    with forwarding(limits=ConnectionLimits(refusal_s=LIMIT_S)) as forwarder:
        with forwarder.connect() as client:
            client.sendall(REQUEST)
            assert forwarder.woken.wait(LIMIT_S)
            forwarder.ports.refuse()
            assert read_all(client) == b""
        with forwarder.connect() as client:
            client.sendall(REQUEST)
            assert read_all(client) == b""
        assert forwarder.wakes == 1


def test_drain_closes_idle_connections_now_and_others_after_their_response(
    forwarder: Forwarder, server: socket.socket
) -> None:
    forwarder.ports.connect(target(server))
    with forwarder.connect() as idle, forwarder.connect() as busy, forwarder.connect() as silent:
        idle.sendall(REQUEST)
        idle_upstream = accept(server)
        idle_upstream.sendall(RESPONSE)
        assert idle.recv(1000) == RESPONSE
        wait_for(forwarder.is_connected_idle)
        busy.sendall(REQUEST)
        with accept(server) as upstream:
            assert upstream.recv(1000) == REQUEST
            forwarder.ports.drain()
            assert (read_all(idle), read_all(silent)) == (b"", b"")
            with idle_upstream:
                assert read_all(idle_upstream) == REQUEST
            upstream.sendall(RESPONSE)
            assert read_all(upstream) == b""
        assert read_all(busy) == RESPONSE
    with pytest.raises(ConnectionRefusedError):
        forwarder.connect()


def test_connection_over_the_maximum_replaces_the_longest_idle_one(server: socket.socket) -> None:
    with forwarding(limits=ConnectionLimits(connections=2)) as forwarder:
        forwarder.ports.connect(target(server))
        with forwarder.connect() as idle, forwarder.connect() as first:
            first.sendall(REQUEST)
            with accept(server), forwarder.connect() as second:
                assert read_all(idle) == b""
                second.sendall(REQUEST)
                with accept(server), forwarder.connect() as third:
                    assert read_all(third) == b"", "the others are in use"
                    assert forwarder.ports.has_open_request()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_port_in_use_names_its_setting(server: socket.socket, protocol: str) -> None:
    port = server.getsockname()[1]
    with pytest.raises(EmbeddedServerError, match=rf"port {port} .* in use.*SUPERRES_TRITON_{protocol.upper()}_PORT"):
        ClientPorts({"grpc": find_free_port(), protocol: port}, lambda: None).open()


def test_without_ports_nothing_runs() -> None:
    ports = ClientPorts({"grpc": 0, "http": 0}, lambda: None)
    ports.open()
    ports.connect({})
    assert (ports.has_open_request(), ports.disconnect_if_idle()) == (False, True)
    ports.drain()
    ports.close()
    assert "triton-ports" not in {thread.name for thread in threading.enumerate()}


@contextmanager
def grpc_server() -> Iterator[int]:
    """Serve one method, /echo/Back, which returns its message."""

    class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
        def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
            return grpc.unary_unary_rpc_method_handler(lambda message, _: message)

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Echo()], options=[("grpc.max_receive_message_length", -1)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


def test_grpc_channel_opens_to_a_sleeping_server_and_its_call_wakes_it() -> None:
    with (
        forwarding("grpc") as forwarder,
        grpc.insecure_channel(
            f"127.0.0.1:{forwarder.port}",
            options=[("grpc.max_receive_message_length", -1)],
        ) as channel,
    ):
        states: list[grpc.ChannelConnectivity] = []
        channel.subscribe(states.append, try_to_connect=True)
        wait_for(lambda: grpc.ChannelConnectivity.READY in states)
        assert forwarder.wakes == 0, "an idle channel makes no request"
        back = channel.unary_unary("/echo/Back")
        message = bytes(5_000_000)
        for _ in range(2):  # the second time after the server slept
            forwarder.woken.clear()
            call = back.future(message, timeout=LIMIT_S)
            assert forwarder.woken.wait(LIMIT_S)
            with grpc_server() as port:
                forwarder.ports.connect({"grpc": port})
                assert call.result() == message
                assert back(b"again", timeout=LIMIT_S) == b"again"
                wait_for(forwarder.ports.disconnect_if_idle)
                wait_for(lambda: states[-1] is grpc.ChannelConnectivity.IDLE)
        channel.unsubscribe(states.append)
