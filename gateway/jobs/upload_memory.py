"""The intake: how many bytes of uploads may be in memory at once, all requests together.

A request takes its share before a byte of its body is read and holds it until its answer has been sent; one that would
be too much waits, unread, for a short time. Without it as many uploads are read at once as there are threads: 640 MB.
Beside its own others a visitor's upload waits while they would be more than half, so that nobody keeps others out by
announcing much and sending little; one alone may be as large as uploads may be.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

WAIT_S = 10.0
"""For others' uploads to end. Longer would be longer than browsers and proxies like to send into silence."""


class UploadMemoryFullError(Exception):
    """Others' uploads filled the memory for as long as one may wait."""


class Reservation:
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


@dataclass(eq=False, frozen=True)
class _Turn:
    visitor: str
    n_bytes: int


class UploadMemory:
    """A number of bytes that requests share. Safe to use from several threads."""

    def __init__(self, max_bytes: int, *, wait_s: float = WAIT_S, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self._wait_s = wait_s
        self._clock = clock
        self._changed = threading.Condition()
        self._taken: Counter[str] = Counter()
        """By visitor."""
        self._turns: list[_Turn] = []
        """Those who wait, in the order in which they came: a large upload is not overtaken for ever by small ones."""

    def take(self, n_bytes: int, visitor: str) -> Reservation:
        """Return a share of that many bytes, of all there are at most; raise IntakeFull after a wait in vain."""
        turn = _Turn(visitor, min(n_bytes, self.max_bytes))
        end = self._clock() + self._wait_s
        with self._changed:
            self._turns.append(turn)
            try:
                while self._find_next() is not turn or self._taken.total() + turn.n_bytes > self.max_bytes:
                    remaining_s = end - self._clock()
                    if remaining_s <= 0:
                        raise UploadMemoryFullError
                    self._changed.wait(remaining_s)
                self._taken[visitor] += turn.n_bytes
            finally:
                self._turns.remove(turn)
                self._changed.notify_all()
        return Reservation(turn.n_bytes, lambda surplus: self._release(visitor, surplus))

    def taken(self) -> int:
        """Return how many bytes are taken."""
        with self._changed:
            return self._taken.total()

    def _find_next(self) -> _Turn | None:
        """Return who is next: the first to have come whose visitor may hold so much."""
        for turn in self._turns:
            held = self._taken[turn.visitor]
            if not held or held + turn.n_bytes <= self.max_bytes // 2:
                return turn
        return None

    def _release(self, visitor: str, n_bytes: int) -> None:
        with self._changed:
            self._taken[visitor] -= n_bytes
            self._taken += Counter()  # forgets whoever holds nothing
            self._changed.notify_all()
