"""Results of the form, kept in memory until their pictures are fetched: bounded in bytes, number and age.

There is no session and no cookie: whoever knows a result's id, which nobody can guess, may fetch it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

Clock = Callable[[], float]


@dataclass(frozen=True)
class StoredImage:
    """An image file and what it is called."""

    data: bytes = field(repr=False)
    media_type: str
    filename: str


@dataclass(frozen=True)
class BeforeAfter:
    """The upload, and what became of it."""

    before: StoredImage
    after: StoredImage

    def __len__(self) -> int:
        return len(self.before.data) + len(self.after.data)


class ResultStore:
    """A store of pairs by id. The oldest go first when a new one needs the room. Safe to use from several threads."""

    def __init__(self, *, max_bytes: int, max_count: int, max_age_s: float, clock: Clock = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._max_count = max_count
        self._max_age_s = max_age_s
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, BeforeAfter]] = OrderedDict()
        self._bytes = 0

    def keep(self, pair: BeforeAfter) -> str | None:
        """Keep a pair and return its id; None when it is larger than the whole store."""
        if len(pair) > self._max_bytes:
            return None
        result_id = secrets.token_urlsafe(16)
        with self._lock:
            self._drop_expired()
            while self._kept and (len(self._kept) >= self._max_count or self._bytes + len(pair) > self._max_bytes):
                self._drop_oldest()
            self._kept[result_id] = (self._clock() + self._max_age_s, pair)
            self._bytes += len(pair)
        return result_id

    def find(self, result_id: str) -> BeforeAfter | None:
        """Return the pair of that id; None when it is gone or never was."""
        with self._lock:
            self._drop_expired()
            kept = self._kept.get(result_id)
        return kept[1] if kept else None

    def _drop_expired(self) -> None:
        now = self._clock()
        while self._kept and next(iter(self._kept.values()))[0] <= now:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, (_, pair) = self._kept.popitem(last=False)
        self._bytes -= len(pair)
