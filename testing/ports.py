"""Free ports for servers that cannot choose one themselves."""

from __future__ import annotations

import os
import random
import socket

# Below the ports that the kernel gives to outgoing connections and to servers on port 0 (from 32,768 on Linux), so that
# nobody else takes a port between the test that chose it and the server that binds it, also while a server restarts.
# The bus port of a Redis cluster is 10,000 higher, and is below them too.
# Each process of pytest-xdist has ports of its own.
_RANGE = range(
    16_000 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")),
    22_000,
    int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")),
)
_BUS_OFFSET = 10_000

_given: set[int] = set()


def find_free_port(host: str = "127.0.0.1") -> int:
    """Return a port that is free, and whose bus port of a Redis cluster is free. Never returns one twice."""
    for port in random.sample(_RANGE, len(_RANGE)):  # in random order: another run at the same time takes others
        if port not in _given and all(_is_free(host, each) for each in (port, port + _BUS_OFFSET)):
            _given.add(port)
            return port
    raise AssertionError("no free port")


def find_free_ports(count: int) -> list[int]:
    """Return different free ports."""
    return [find_free_port() for _ in range(count)]


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
