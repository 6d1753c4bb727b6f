"""The client of Redis that counters and ledger share: nothing it does waits for long, the look-up of the name included.

redis-py bounds connecting and answering, not `getaddrinfo`. Where the name goes with the container (podman, seen with
Redis killed: 15 s for one look-up), each request that asked for a dead Redis stood there for that long.
"""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

LOOK_UP_S = 0.25
CONNECT_S = 0.25
ANSWER_S = 0.5
MOST_LOOK_UPS = 32
"""At a time. One a second is begun at most while Redis is away, and none was seen to take longer than 15 s."""


def connect(url: str) -> redis.Redis:
    """Return a client of Redis that never waits long: without these a dead Redis hangs every request (measured)."""
    client = redis.Redis.from_url(
        url, socket_connect_timeout=CONNECT_S, socket_timeout=ANSWER_S, retry=Retry(NoBackoff(), 0)
    )
    pool = client.connection_pool
    if issubclass(pool.connection_class, redis.Connection):  # rediss:// too; a socket of this machine has no name
        pool.connection_class = type("BoundedConnection", (_BoundedDnsLookup, pool.connection_class), {})
    return client


class DnsResolver:
    """Looks names up in threads of their own, for `getaddrinfo` cannot be ended.

    One that has taken too long is not waited for again: it may be that only newer ones find what has come back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[_DnsLookup] = []

    def wait(self, host: str, port: int, limit_s: float) -> None:
        """Return when a name has been found; raise OSError when it is not, or not within the limit."""
        pending = self._begin_or_join(host, port, limit_s)
        try:
            pending.result(limit_s)
        except TimeoutError as error:
            raise TimeoutError(f"the name {host} was not looked up within {limit_s:g} s") from error

    def _begin_or_join(self, host: str, port: int, limit_s: float) -> Future[object]:
        with self._lock:
            now = time.monotonic()
            for other in self._pending:
                if (other.host, other.port) == (host, port) and now - other.began < limit_s:
                    return other.future
            if len(self._pending) == MOST_LOOK_UPS:
                raise TimeoutError(f"{MOST_LOOK_UPS} look-ups of names are still waited for")
            begun = _DnsLookup(host, port, now)
            try:
                threading.Thread(target=self._look_up, args=(begun,), name="look-up", daemon=True).start()
            except RuntimeError as error:  # of threads, too, there are only so many
                raise OSError(f"the name {host} cannot be looked up: {error}") from error
            self._pending.append(begun)
            return begun.future

    def _look_up(self, own: _DnsLookup) -> None:
        found = error = None
        try:
            found = socket.getaddrinfo(own.host, own.port, type=socket.SOCK_STREAM)
        except Exception as raised:  # noqa: BLE001 - a name that cannot be encoded is no OSError; who waits must be told
            error = OSError(f"the name {own.host} is not found: {raised}")
        with self._lock:
            self._pending.remove(own)
        if error is None:
            own.future.set_result(found)
        else:
            own.future.set_exception(error)


@dataclass(eq=False)
class _DnsLookup:
    host: str
    port: int
    began: float
    """A moment of time.monotonic."""
    future: Future[object] = field(default_factory=Future)


_look_ups = DnsResolver()


class _BoundedDnsLookup:
    """Of a connection of redis-py: looks the name up before redis-py does, which then has the answer at once."""

    host: str
    port: int

    def _connect(self) -> Any:
        _look_ups.wait(self.host, self.port, LOOK_UP_S)
        return super()._connect()  # type: ignore[misc]
