"""DNS look-ups with a time limit, for the Redis client and for webhooks.

redis-py limits the time to connect and to respond, but not `getaddrinfo`. Where the name disappears together with the
container (podman, measured: 15 s for one look-up after Redis was killed), each request would wait that long.
"""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias

# Maximum number of look-ups at the same time. While Redis is unavailable, at most one per second and host starts, and
# none was measured to take longer than 15 s.
MAX_LOOKUPS = 32


AddressInfo: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]
"""Family, type, protocol, canonical name and address, as `socket.getaddrinfo` has them."""


class HostNotFoundError(OSError):
    """A host name has no address, or cannot be looked up."""


class DnsResolver:
    """Looks up host names in threads of its own, because `getaddrinfo` cannot be interrupted.

    Requests for the same name share a look-up while it is younger than their timeout. After that a new one starts,
    because an old look-up may not notice that the name exists again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[_DnsLookup] = []

    def wait(self, host: str, port: int, timeout_s: float) -> list[AddressInfo]:
        """Return what a name resolves to. Raises OSError if it cannot be, or if it takes longer than the timeout."""
        future = self._start_or_join(host, port, timeout_s)
        try:
            return future.result(timeout_s)
        except TimeoutError as error:
            raise TimeoutError(f"the look-up of {host} took longer than {timeout_s:g} s") from error

    def _start_or_join(self, host: str, port: int, timeout_s: float) -> Future[list[AddressInfo]]:
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
                raise HostNotFoundError(f"the look-up of {host} cannot start: {error}") from error
            self._pending.append(lookup)
            return lookup.future

    def _look_up(self, own: _DnsLookup) -> None:
        found: list[AddressInfo] = []
        error = None
        try:
            found = [*socket.getaddrinfo(own.host, own.port, type=socket.SOCK_STREAM)]
        except Exception as raised:  # noqa: BLE001 - a name that cannot be encoded raises UnicodeError, not OSError
            error = HostNotFoundError(f"the host {own.host} was not found: {raised}")
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
    future: Future[list[AddressInfo]] = field(default_factory=Future)
