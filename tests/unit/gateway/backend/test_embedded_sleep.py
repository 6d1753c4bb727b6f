"""When the embedded server sleeps, with simulated client ports; tests/integration/triton uses a real server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from gateway.backend.embedded import EmbeddedBackend
from gateway.backend.triton_process import find_free_ports
from gateway.config.settings import Settings


class PortsOfClients:
    """Client ports with or without an open request, on which a request may come just before the server sleeps."""

    def __init__(self, *, is_idle: bool, at_sleep: Callable[[], None] = lambda: None) -> None:
        self.is_idle = is_idle
        self.at_sleep = at_sleep
        self.calls: list[str] = []

    def disconnect_if_idle(self) -> bool:
        self.calls.append("disconnect")
        self.at_sleep()
        return self.is_idle

    def connect(self, _: object) -> None:
        self.calls.append("connect")


@pytest.mark.parametrize(
    ("is_idle", "is_woken", "sleeps", "calls"),
    [
        (True, False, True, ["disconnect"]),
        (False, False, False, ["disconnect"]),
        (True, True, False, ["disconnect", "connect"]),
    ],
    ids=("idle", "open request", "request at the last moment"),
)
def test_server_sleeps_unless_a_triton_client_needs_it(
    tmp_path: Path, is_idle: bool, is_woken: bool, sleeps: bool, calls: list[str]
) -> None:
    backend = EmbeddedBackend(Settings(state_dir=str(tmp_path), scale_to_zero_after_s=60))
    client, process = MagicMock(), MagicMock(ports=find_free_ports())
    ports: Any = PortsOfClients(is_idle=is_idle, at_sleep=backend.wake if is_woken else lambda: None)
    backend._client, backend._client_ports = client, ports
    backend._last_used -= 61

    assert backend._fall_asleep_if_idle(process) is sleeps
    assert ports.calls == calls
    assert (backend._client is None, backend._is_wanted) == (sleeps, not sleeps)
    assert client.close.called is sleeps
    assert not backend._fall_asleep_if_idle(process), "it sleeps already, or was used just now"
