"""A memory budget for uploads: how many bytes all requests together may hold.

A request reserves memory before its body is read and releases it once its response has been sent. A request that does
not fit waits, unread, for up to `WAIT_S`. Without the budget each worker thread could read an upload: 640 MB.

While a client holds a reservation, its further uploads wait as long as it would hold more than half of the budget, so
that nobody can keep others out by announcing much and sending little. A client's only upload may use the whole budget.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

# Seconds to wait for other uploads to end. Browsers and proxies give up on a silent server if it takes much longer.
WAIT_S = 10.0


class UploadMemoryFullError(Exception):
    """The budget stayed full of other uploads during the whole wait."""


class Reservation:
    """Bytes that a request may hold in memory."""

    def __init__(self, n_bytes: int, release: Callable[[int], None]) -> None:
        self.n_bytes = n_bytes
        self._release = release
        self._lock = threading.Lock()

    def shrink(self, n_bytes: int) -> None:
        """Release all but `n_bytes`."""
        with self._lock:
            surplus = max(0, self.n_bytes - n_bytes)
            self.n_bytes -= surplus
        self._release(surplus)

    def move(self) -> Reservation:
        """Return a reservation that has all bytes from now on; this one has none."""
        with self._lock:
            moved, self.n_bytes = Reservation(self.n_bytes, self._release), 0
        return moved

    def release(self) -> None:
        """Release all bytes. May be called more than once."""
        self.shrink(0)


@dataclass(eq=False, frozen=True)
class _Waiter:
    client_id: str
    n_bytes: int


class UploadMemory:
    """A budget of bytes that requests share. Safe to use from several threads."""

    def __init__(self, max_bytes: int, *, wait_s: float = WAIT_S, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self._wait_s = wait_s
        self._clock = clock
        self._changed = threading.Condition()
        # Reserved bytes by client id.
        self._reserved: Counter[str] = Counter()
        # In the order of arrival, so that small uploads do not overtake a large one without end.
        self._waiters: list[_Waiter] = []

    def reserve(self, n_bytes: int, client_id: str) -> Reservation:
        """Reserve bytes, at most the whole budget; raise UploadMemoryFullError if they are not free in time."""
        waiter = _Waiter(client_id, min(n_bytes, self.max_bytes))
        end = self._clock() + self._wait_s
        with self._changed:
            self._waiters.append(waiter)
            try:
                while self._find_next() is not waiter or self._reserved.total() + waiter.n_bytes > self.max_bytes:
                    remaining_s = end - self._clock()
                    if remaining_s <= 0:
                        raise UploadMemoryFullError
                    self._changed.wait(remaining_s)
                self._reserved[client_id] += waiter.n_bytes
            finally:
                self._waiters.remove(waiter)
                self._changed.notify_all()
        return Reservation(waiter.n_bytes, lambda surplus: self._release(client_id, surplus))

    def reserved_bytes(self) -> int:
        """Return how many bytes are reserved."""
        with self._changed:
            return self._reserved.total()

    def _find_next(self) -> _Waiter | None:
        """Return the first waiter whose client may hold the bytes that it waits for."""
        for waiter in self._waiters:
            held = self._reserved[waiter.client_id]
            if not held or held + waiter.n_bytes <= self.max_bytes // 2:
                return waiter
        return None

    def _release(self, client_id: str, n_bytes: int) -> None:
        with self._changed:
            self._reserved[client_id] -= n_bytes
            self._reserved += Counter()  # drops clients that hold nothing
            self._changed.notify_all()
