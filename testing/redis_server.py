"""A real redis-server on a free loopback port that a test can kill, freeze and restart."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from gateway.storage import redis as redis_client
from testing.ports import find_free_port

START_LIMIT_S = 120.0


# The gateway's client waits less than a second for each response of Redis. On a machine that stalls for that long the
# gateway would count by itself, and a test that expects shared counts would fail.
_LONG_TIMEOUT_S = 60.0


def raise_timeouts(set_attribute: Callable[[object, str, float], None] = setattr) -> None:
    """Let the gateway's Redis clients that connect from now on wait long for look-ups, connections and responses."""
    for name in ("_DNS_TIMEOUT_S", "_CONNECT_TIMEOUT_S", "_RESPONSE_TIMEOUT_S"):
        assert hasattr(redis_client, name)
        set_attribute(redis_client, name, _LONG_TIMEOUT_S)


def wait_for(condition: Callable[[], object], what: str, limit_s: float = START_LIMIT_S) -> None:
    """Return when a condition holds; fail after a time that nothing here needs."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {limit_s:g} s"
        time.sleep(0.02)


def execute(host: str, port: int, *command: str | int) -> Any:
    """Return the response to a command on a connection of its own."""
    with redis.Redis(host=host, port=port, decode_responses=True) as client:
        return client.execute_command(*command)


class RedisServer:
    """One redis-server that stores nothing on disk, unless options say so."""

    def __init__(self, folder: Path, *options: str, host: str = "127.0.0.1", port: int = 0) -> None:
        command = shutil.which("redis-server")
        assert command, "redis-server is missing: apt-get install --no-install-recommends redis-server"
        self.host = host
        self.port = port or find_free_port(host)
        self._command = [
            *(command, "--port", str(self.port), "--bind", host, "--save", "", "--appendonly", "no"),
            *("--dir", str(folder), "--repl-diskless-sync-delay", "0", *options),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"

    def start(self, *options: str, until: tuple[type[Exception], ...] = ()) -> None:
        """Start the server, and wait until it responds; with `until`, until it responds with such an error."""
        self._process = subprocess.Popen(
            [*self._command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_for(lambda: self._responds(until), "redis-server responds")
        except BaseException:
            self.kill()
            raise

    def _responds(self, until: tuple[type[Exception], ...]) -> bool:
        assert self._process is not None
        try:
            self.execute("PING")
        except until:
            return True
        except redis.ConnectionError:
            assert self._process.poll() is None, "redis-server ended"
            return False
        return not until

    def execute(self, *command: str | int) -> Any:
        """Return the response to a command on a connection of its own."""
        return execute(self.host, self.port, *command)

    def kill(self) -> None:
        """Kill the server, as a crash does: connections break and new ones are refused."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Suspend the server: connections stay open and get no response."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume the server."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
