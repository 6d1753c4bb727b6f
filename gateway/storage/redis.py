"""The Redis client that rate limits and usage records share. None of its calls waits long, DNS look-ups included.

redis-py limits the time to connect and to respond, but not `getaddrinfo`. Where the name disappears together with the
container (podman, measured: 15 s for one look-up after Redis was killed), each request would wait that long.
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

_DNS_TIMEOUT_S = 0.25
_CONNECT_TIMEOUT_S = 0.25
_RESPONSE_TIMEOUT_S = 0.5

# Maximum number of look-ups at the same time. While Redis is unreachable, at most one per second starts, and none was
# measured to take longer than 15 s.
MAX_LOOKUPS = 32


def connect(url: str) -> redis.Redis:
    """Return a Redis client with short timeouts. With redis-py's defaults, a dead Redis blocks each request."""
    client = redis.Redis.from_url(
        url,
        socket_connect_timeout=_CONNECT_TIMEOUT_S,
        socket_timeout=_RESPONSE_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )
    pool = client.connection_pool
    if issubclass(pool.connection_class, redis.Connection):  # also rediss://, but not unix://, which has no host name
        pool.connection_class = type("BoundedConnection", (_BoundedDnsLookup, pool.connection_class), {})
    return client


class DnsResolver:
    """Looks up host names in threads of its own, because `getaddrinfo` cannot be interrupted.

    Requests for the same name share a look-up while it is younger than their timeout. After that a new one starts,
    because an old look-up may not notice that the name exists again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[_DnsLookup] = []

    def wait(self, host: str, port: int, timeout_s: float) -> None:
        """Return when a name has been resolved. Raises OSError if it cannot be, or takes longer than the timeout."""
        future = self._start_or_join(host, port, timeout_s)
        try:
            future.result(timeout_s)
        except TimeoutError as error:
            raise TimeoutError(f"the look-up of {host} took longer than {timeout_s:g} s") from error

    def _start_or_join(self, host: str, port: int, timeout_s: float) -> Future[object]:
        with self._lock:
            now = time.monotonic()
            for other in self._pending:
                if (other.host, other.port) == (host, port) and now - other.started_at < timeout_s:
                    return other.future
            if len(self._pending) == MAX_LOOKUPS:
                raise TimeoutError(f"{MAX_LOOKUPS} DNS look-ups are already running")
            lookup = _DnsLookup(host, port, now)
            try:
                threading.Thread(target=self._look_up, args=(lookup,), name="dns-lookup", daemon=True).start()
            except RuntimeError as error:  # the number of threads is limited, too
                raise OSError(f"the look-up of {host} cannot start: {error}") from error
            self._pending.append(lookup)
            return lookup.future

    def _look_up(self, own: _DnsLookup) -> None:
        found = error = None
        try:
            found = socket.getaddrinfo(own.host, own.port, type=socket.SOCK_STREAM)
        except Exception as raised:  # noqa: BLE001 - a name that cannot be encoded raises UnicodeError, not OSError
            error = OSError(f"the host {own.host} was not found: {raised}")
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
    started_at: float
    """Time of time.monotonic."""
    future: Future[object] = field(default_factory=Future)


_resolver = DnsResolver()


class _BoundedDnsLookup:
    """Mixin for redis-py's connections: looks the host up with a timeout, before redis-py does."""

    host: str
    port: int

    def _connect(self) -> Any:
        _resolver.wait(self.host, self.port, _DNS_TIMEOUT_S)
        return super()._connect()  # type: ignore[misc]
