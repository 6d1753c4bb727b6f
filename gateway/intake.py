"""The intake: how many bytes of uploads may be in memory at once, all requests together.

A request takes its share before a byte of its body is read and holds it until its answer is on its way; one that would
be too much waits, unread, for a short time. Without it as many uploads are read at once as there are threads: 640 MB.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

WAIT_S = 10.0
"""For others' uploads to end. Longer would be longer than browsers and proxies like to send into silence."""


class IntakeFull(Exception):
    """Others' uploads filled the memory for as long as one may wait."""


class Share:
    """Bytes that a request may hold in memory. `end` may be called more than once."""

    def __init__(self, n_bytes: int, give_back: Callable[[int], None]) -> None:
        self.n_bytes = n_bytes
        self._give_back = give_back
        self._lock = threading.Lock()

    def shrink(self, n_bytes: int) -> None:
        """Give back what turned out not to be needed."""
        with self._lock:
            surplus = max(0, self.n_bytes - n_bytes)
            self.n_bytes -= surplus
        self._give_back(surplus)

    def end(self) -> None:
        """Give all of it back."""
        self.shrink(0)


class Intake:
    """A number of bytes that requests share. Safe to use from several threads."""

    def __init__(self, max_bytes: int, *, wait_s: float = WAIT_S, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self._wait_s = wait_s
        self._clock = clock
        self._changed = threading.Condition()
        self._taken = 0
        self._turns: list[object] = []
        """Those who wait, in the order in which they came: a large upload is not overtaken for ever by small ones."""

    def take(self, n_bytes: int) -> Share:
        """Return a share of that many bytes, of all there are at most; raise IntakeFull after a wait in vain."""
        wanted = min(n_bytes, self.max_bytes)
        turn = object()
        end = self._clock() + self._wait_s
        with self._changed:
            self._turns.append(turn)
            try:
                while self._turns[0] is not turn or self._taken + wanted > self.max_bytes:
                    remaining_s = end - self._clock()
                    if remaining_s <= 0:
                        raise IntakeFull
                    self._changed.wait(remaining_s)
                self._taken += wanted
            finally:
                self._turns.remove(turn)
                self._changed.notify_all()
        return Share(wanted, self._release)

    def taken(self) -> int:
        """Return how many bytes are taken."""
        with self._changed:
            return self._taken

    def _release(self, n_bytes: int) -> None:
        with self._changed:
            self._taken -= n_bytes
            self._changed.notify_all()
