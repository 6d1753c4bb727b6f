"""The client of Redis that counters and ledger share: nothing it does waits for long, the look-up of the name included.

redis-py bounds connecting and answering, not `getaddrinfo`. Where the name goes with the container (podman, seen with
Redis killed: 15 s for one look-up), each request that asked for a dead Redis stood there for that long.
"""

from __future__ import annotations

import socket
import threading
from concurrent.futures import Future
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

LOOK_UP_S = 0.25
CONNECT_S = 0.25
ANSWER_S = 0.5


def connect(url: str) -> redis.Redis:
    """Return a client of Redis that never waits long: without these a dead Redis hangs every request (measured)."""
    client = redis.Redis.from_url(
        url, socket_connect_timeout=CONNECT_S, socket_timeout=ANSWER_S, retry=Retry(NoBackoff(), 0)
    )
    pool = client.connection_pool
    if issubclass(pool.connection_class, redis.Connection):  # rediss:// too; a socket of this machine has no name
        pool.connection_class = type("BoundedConnection", (_BoundedLookUp, pool.connection_class), {})
    return client


class LookUps:
    """Looks names up in threads of their own, one at a time for each name: `getaddrinfo` cannot be ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[tuple[str, int], Future[object]] = {}

    def wait(self, host: str, port: int, limit_s: float) -> None:
        """Return when a name has been found; raise OSError when it is not, or not within the limit."""
        with self._lock:
            future = self._pending.get((host, port))
            if future is None:
                future = self._pending[host, port] = Future()
                threading.Thread(target=self._look_up, args=(host, port, future), name="look-up", daemon=True).start()
        try:
            future.result(limit_s)
        except TimeoutError as error:
            raise TimeoutError(f"the name {host} was not looked up within {limit_s:g} s") from error

    def _look_up(self, host: str, port: int, future: Future[object]) -> None:
        found = error = None
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except Exception as raised:  # noqa: BLE001 - a name that cannot be encoded is no OSError; who waits must be told
            error = OSError(f"the name {host} is not found: {raised}")
        with self._lock:
            del self._pending[host, port]
        if error is None:
            future.set_result(found)
        else:
            future.set_exception(error)


_look_ups = LookUps()


class _BoundedLookUp:
    """Of a connection of redis-py: looks the name up before redis-py does, which then has the answer at once."""

    host: str
    port: int

    def _connect(self) -> Any:
        _look_ups.wait(self.host, self.port, LOOK_UP_S)
        return super()._connect()  # type: ignore[misc]
