"""A connection to a real Triton that goes silent while it looks open, and pings that keep others open."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as grpc_client

from gateway.access.api_keys import ApiKeyStore
from gateway.app import create_app
from gateway.backend.channel import SERVER_KEEPALIVE_OPTIONS, Keepalive
from gateway.backend.interface import BackendDiedError
from gateway.backend.remote import RemoteBackend, make_remote_backend
from gateway.backend.triton_client import MODEL_KEY_HEADER
from gateway.cancellation import CancelToken
from gateway.config.settings import Settings
from testing.data import ROOT
from testing.images import draw_photo
from testing.requests import post_image, read_image
from testing.silent_relay import SilentRelay
from testing.triton import TritonServer
from testing.triton_clients import upscale_request

# gRPC's client sends at most one ping per second.
SHORT = Keepalive(interval_s=1.0, timeout_s=2.5)
LIMIT_S = 120.0


@pytest.fixture
def relay(triton_server: TritonServer) -> Iterator[SilentRelay]:
    running = SilentRelay(triton_server.grpc_address)
    yield running
    running.close()


@pytest.fixture
def settings(triton_server: TritonServer, relay: SilentRelay, tmp_path: Path) -> Settings:
    return Settings(
        state_dir=str(tmp_path),
        backend_address=relay.address,
        model_key=triton_server.model_key,
        cache_max_bytes=0,
        deadline_s=LIMIT_S,
    )


@pytest.fixture
def backend(settings: Settings) -> Iterator[RemoteBackend]:
    made = make_remote_backend(settings, SHORT)
    yield made
    made.close()


def test_image_on_a_silent_connection_is_sent_again_on_a_new_one(
    backend: RemoteBackend, settings: Settings, relay: SilentRelay, caplog: pytest.LogCaptureFixture
) -> None:
    client, key = create_app(settings, backend).test_client(), ApiKeyStore(settings.keys_path()).new("tests")
    first = post_image(client, key)
    assert (first.status_code, relay.connections) == (200, 1)

    relay.go_silent()
    second = post_image(client, key)

    assert (second.status_code, relay.connections) == (200, 2), second.get_data(as_text=True)
    assert np.array_equal(read_image(second.data), read_image(first.data))
    assert "timeout: the connection is open, but the server does not respond" in caplog.text


def test_readiness_call_on_a_silent_connection_is_repeated_on_a_new_one(
    backend: RemoteBackend, relay: SilentRelay
) -> None:
    pixels = draw_photo(8, 8)
    start = {"deadline": time.monotonic() + LIMIT_S, "request_id": "id", "cancel_token": CancelToken()}
    assert list(backend.upscale_bands(pixels, "compact_x4", **start))  # type: ignore[arg-type]
    backend.state_tracker.mark_asleep()  # as after an idle time

    relay.go_silent()

    assert list(backend.upscale_bands(pixels, "compact_x4", **start))  # type: ignore[arg-type]
    assert relay.connections == 2


def test_silence_between_two_bands_ends_the_call(backend: RemoteBackend, relay: SilentRelay) -> None:
    bands = backend.upscale_bands(
        draw_photo(400, 300),
        "compact_x4",
        deadline=time.monotonic() + LIMIT_S,
        request_id="id",
        cancel_token=CancelToken(),
    )
    next(bands)

    relay.go_silent()

    with pytest.raises(BackendDiedError, match="timeout: the connection is open"):
        list(bands)


def test_client_may_ping_every_second(triton_server: TritonServer) -> None:
    """Triton 2.51 closes the connection of such a client after the fifth ping, unless its options allow them."""
    idle, busy = PingingClient(triton_server, 1_000), PingingClient(triton_server, 1_001)
    with closing(idle), closing(busy):
        end = time.monotonic() + 7.0  # six pings of each, without calls and during calls
        while time.monotonic() < end:
            result = busy.inner.infer(
                "upscale",
                upscale_request(grpc_client, draw_photo(300, 300)),
                headers={MODEL_KEY_HEADER: triton_server.model_key},
                client_timeout=LIMIT_S,
            )
            assert result.as_numpy("UPSCALED").shape == (1200, 1200, 3)
    for client in (idle, busy):
        assert client.states[-1] is grpc.ChannelConnectivity.READY
        assert client.states.count(grpc.ChannelConnectivity.READY) == 1, f"it had to connect again: {client.states}"


class PingingClient:
    """A client that pings at an interval, and the states of its channel. Those of one interval share a connection."""

    def __init__(self, server: TritonServer, interval_ms: int) -> None:
        pings = grpc_client.KeepAliveOptions(
            keepalive_time_ms=interval_ms, keepalive_timeout_ms=20_000, keepalive_permit_without_calls=True
        )
        pings.http2_max_pings_without_data = 0
        self.states: list[grpc.ChannelConnectivity] = []
        self.inner = grpc_client.InferenceServerClient(server.grpc_address, keepalive_options=pings)
        self.inner._channel.subscribe(self.states.append)
        assert self.inner.is_server_ready()

    def close(self) -> None:
        self.inner._channel.unsubscribe(self.states.append)
        self.inner.close()


def test_container_has_the_same_keepalive_options() -> None:
    text = (ROOT / "docker" / "triton" / "start").read_text()
    found = {word for word in text.split() if word.startswith(("--grpc-keepalive", "--grpc-http2"))}
    assert found == set(SERVER_KEEPALIVE_OPTIONS)
