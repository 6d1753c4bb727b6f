"""A real redis-server on a free loopback port that a test can kill, freeze and restart."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import redis

START_LIMIT_S = 20.0


class RedisServer:
    """One redis-server that stores nothing on disk."""

    def __init__(self, folder: Path) -> None:
        command = shutil.which("redis-server")
        assert command, "redis-server is missing: apt-get install --no-install-recommends redis-server"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._command = [
            command,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            str(folder),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start an empty server and wait until it responds."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + START_LIMIT_S
        while True:
            try:
                with redis.Redis(port=self.port) as client:
                    client.ping()
            except redis.ConnectionError:
                assert self._process.poll() is None, "redis-server ended"
                assert time.monotonic() < end, "redis-server does not answer"
                time.sleep(0.02)
            else:
                return

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
