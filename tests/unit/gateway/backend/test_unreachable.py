"""Why a server cannot be reached stands in the error, for each cause that gRPC itself can report."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from gateway.backend.interface import (
    BackendError,
    BackendMisconfiguredError,
    BackendTimeoutError,
    BackendUnavailableError,
    BackendUnreachableError,
)
from gateway.backend.triton_client import TritonClient
from gateway.backend.unreachable import explain_unavailable, is_being_ended
from gateway.cancellation import CancelToken
from testing.ports import find_free_port

LIMIT_S = 120.0
FAILED = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1"


@contextmanager
def answering(response: bytes) -> Iterator[str]:
    """Accept connections, send each one response after its first bytes, and close it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:  # closed
                    return
                with connection, suppress(OSError):  # a client that closes its channel resets its connections
                    connection.recv(65_536)
                    connection.sendall(response)

        threading.Thread(target=serve, daemon=True).start()
        host, port = listening.getsockname()
        yield f"{host}:{port}"
        listening.shutdown(socket.SHUT_RDWR)


def read_error(address: str) -> BackendError:
    client = TritonClient(address, [])
    try:
        with pytest.raises(BackendError) as caught:
            client.wait_until_ready(time.monotonic() + LIMIT_S, CancelToken())
    finally:
        client.close()
    return caught.value


def test_refused_connection_is_named() -> None:
    error = read_error(f"127.0.0.1:{find_free_port()}")
    assert isinstance(error, BackendUnavailableError)
    assert str(error).startswith("connection refused: nothing listens at this address (")


def test_server_of_http_is_named() -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n") as address:
        error = read_error(address)
    assert isinstance(error, BackendMisconfiguredError)
    assert str(error).startswith("the port does not serve gRPC. Set SUPERRES_BACKEND_ADDRESS to Triton's gRPC port")


def test_connection_closed_at_its_start_is_named() -> None:
    with answering(b"") as address:
        error = read_error(address)
    assert isinstance(error, BackendUnavailableError)
    assert "the server closed the connection before it responded. Check the port" in str(error)


@pytest.mark.parametrize(
    ("text", "cause", "kind"),
    [
        ("errors resolving nohost:1: [Domain name not found]", "the host name was not found", BackendUnreachableError),
        ("DNS resolution failed for nohost:1", "the host name could not be looked up", BackendUnreachableError),
        (
            f"{FAILED}: CERTIFICATE_VERIFY_FAILED: certificate has expired: OK",
            "the server's certificate has expired",
            BackendMisconfiguredError,
        ),
        (
            f"{FAILED}: connection attempt timed out before receiving SETTINGS frame",
            "timeout: the server accepted the connection and sent nothing",
            BackendUnreachableError,
        ),
        (f"{FAILED}: No route to host", "no route to the host", BackendUnreachableError),
        ("Stream removed (ping timeout)", "timeout: the connection is open", BackendUnavailableError),
        ("keepalive watchdog timeout", "timeout: the connection is open", BackendUnavailableError),
        ("Too many streams: 32 are open; no DNS, timed out", "UNAVAILABLE: Too many streams", BackendUnavailableError),
    ],
)
def test_text_of_grpc_becomes_a_cause(text: str, cause: str, kind: type[BackendError]) -> None:
    error = explain_unavailable(text)
    assert type(error) is kind
    assert str(error).startswith(cause)
    assert text in str(error)


def test_timeout_of_a_proxy_is_a_timeout_and_names_the_setting() -> None:
    error = explain_unavailable("Received http2 header with status: 504")
    assert isinstance(error, BackendTimeoutError)
    assert "raise timeoutSeconds of the backend" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "Model swinir - Error when running inference: Server not ready",
        "Request for unknown model: 'upscale_stream' has no available versions",
        "Model swinir - Error when running inference: Request for unknown model: 'swinir' is not found",
    ],
)
def test_server_that_is_being_ended_is_unavailable(text: str) -> None:
    assert is_being_ended(text)
    assert str(explain_unavailable(text)) == f"the server is being ended ({text})"


def test_model_that_was_never_there_is_no_end() -> None:
    assert not is_being_ended("Request for unknown model: 'upscale_stream' is not found")
