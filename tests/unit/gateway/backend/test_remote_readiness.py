"""The readiness calls of a remote backend over gRPC: a server that is not ready, and one that does not listen yet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gateway.backend import triton_client
from gateway.backend.channel import channel_opener
from gateway.backend.interface import BackendUnreachableError
from gateway.backend.remote import RemoteBackend
from gateway.backend.state import BackendStateTracker
from gateway.backend.triton_client import TritonClient
from gateway.cancellation import CancelToken
from testing.ports import find_free_port, find_free_ports

LIMIT_S = 120.0


def wait_for(tracker: BackendStateTracker, name: str) -> None:
    end = time.monotonic() + LIMIT_S
    while tracker.current().name != name:
        assert time.monotonic() < end, f"never {name}"
        time.sleep(0.01)


class Unready(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A Triton that listens and is not ready at first: it is being ended, or another one begins."""

    def __init__(self) -> None:
        self.is_ready = False
        self.calls = threading.Semaphore(0)

    def ServerReady(self, _: object, __: object) -> service_pb2.ServerReadyResponse:  # noqa: N802 - gRPC's name
        self.calls.release()
        return service_pb2.ServerReadyResponse(ready=self.is_ready)


class Ready(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A Triton that listens and is ready."""

    def ServerReady(self, _: object, __: object) -> service_pb2.ServerReadyResponse:  # noqa: N802 - gRPC's name
        return service_pb2.ServerReadyResponse(ready=True)


@contextmanager
def listening(servicer: service_pb2_grpc.GRPCInferenceServiceServicer, port: int) -> Iterator[None]:
    server = grpc.server(ThreadPoolExecutor(1))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    assert server.add_insecure_port(f"127.0.0.1:{port}") == port
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait(LIMIT_S)


def test_server_not_ready_over_grpc_is_waited_for() -> None:
    port, servicer = find_free_port(), Unready()
    backend = RemoteBackend(TritonClient(f"127.0.0.1:{port}", []), BackendStateTracker())
    with listening(servicer, port):
        backend.wake()
        for _ in range(2):
            assert servicer.calls.acquire(timeout=LIMIT_S)
        assert backend.state_tracker.current().name == "booting"
        servicer.is_ready = True
        wait_for(backend.state_tracker, "up")
    backend.close()


def test_server_with_another_address_is_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under Docker Compose, where a container that restarts may get one. A channel looks its host up every 30 s."""
    before, after = find_free_ports(2)
    opened: list[str] = []

    def opener(address: str, *options: Any) -> Callable[[], grpc.Channel]:
        def open_channel() -> grpc.Channel:
            opened.append(address)
            return channel_opener(f"127.0.0.1:{before if len(opened) < 3 else after}", *options)()

        return open_channel

    monkeypatch.setattr(triton_client, "channel_opener", opener)
    client = TritonClient("triton:8001", [])
    with listening(Ready(), after):
        for _ in range(2):
            with pytest.raises(BackendUnreachableError, match="connection refused"):
                client.wait_until_ready(time.monotonic() + LIMIT_S, CancelToken())
        client.wait_until_ready(time.monotonic() + LIMIT_S, CancelToken())
        client.wait_until_ready(time.monotonic() + LIMIT_S, CancelToken())

    assert opened == ["triton:8001"] * 3, "a channel that works is kept"
    client.close()


def test_refused_grpc_connection_means_booting(caplog: pytest.LogCaptureFixture) -> None:
    port = find_free_port()
    backend = RemoteBackend(TritonClient(f"127.0.0.1:{port}", []), BackendStateTracker())
    backend.wake()
    end = time.monotonic() + LIMIT_S
    while "the backend cannot be reached" not in caplog.text:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert backend.state_tracker.current().name == "booting"

    with listening(Ready(), port):
        wait_for(backend.state_tracker, "up")

    backend.close()
    assert caplog.text.count("the backend cannot be reached") == 1
