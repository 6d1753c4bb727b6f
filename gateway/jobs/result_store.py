"""The result store: results of the form and of event streams, in memory, bounded by bytes, count and age.

It needs neither sessions nor cookies: a result's id is an unguessable secret, and anyone who knows it can download
the result.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cachetools import TTLCache


@dataclass(frozen=True)
class StoredImage:
    """An encoded image with its media type and file name."""

    data: bytes = field(repr=False)
    media_type: str
    filename: str


@dataclass(frozen=True)
class BeforeAfter:
    """A result and, for a page that compares the two, its upload."""

    before: StoredImage | None
    after: StoredImage
    shown: Mapping[str, object] = field(default_factory=dict, repr=False)
    """Variables of the page that shows both. They share the images' bytes and need little memory of their own."""

    def __len__(self) -> int:
        return (len(self.before.data) if self.before else 0) + len(self.after.data)


class ResultStore:
    """A store of results by id that drops the least recently downloaded first. Safe to use from several threads."""

    def __init__(
        self, *, max_bytes: int, max_count: int, max_age_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_count = max_count
        self._lock = threading.Lock()
        self._results: TTLCache[str, BeforeAfter] = TTLCache(max_bytes, max_age_s, timer=clock, getsizeof=len)

    def put(self, result: BeforeAfter) -> str | None:
        """Store a result and return its id; None if it alone is larger than the store."""
        if len(result) > self._results.maxsize:
            return None
        result_id = secrets.token_urlsafe(16)
        with self._lock:
            while len(self._results) >= self._max_count:
                self._results.popitem()
            self._results[result_id] = result
        return result_id

    def get(self, result_id: str) -> BeforeAfter | None:
        """Return the result with this id; None if it has expired, was dropped or never existed."""
        with self._lock:
            self._results.expire()  # frees their memory: a look-up alone does not
            return self._results.get(result_id)

    def delete(self, result_id: str) -> bool:
        """Forget a result at once; return whether there was one with this id."""
        with self._lock:
            self._results.expire()
            return self._results.pop(result_id, None) is not None
