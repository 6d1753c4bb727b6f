"""Stops: one request's way to be ended early, from another thread, wherever it waits.

Set when its visitor leaves, presses Stop or when the gateway ends; whoever waits on the request's behalf says how to
be woken.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class CancelledError(Exception):
    """The work was ended because nobody waits for it any more."""


class CancelToken:
    """Set once, for good. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._callbacks: list[Callable[[], object]] = []

    @property
    def is_set(self) -> bool:
        """Whether the work is to end."""
        return self._is_set

    def set(self) -> None:
        """End the work: call what `calling` registered, each once."""
        with self._lock:
            self._is_set = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def check(self) -> None:
        """Raise Stopped once it is set."""
        if self._is_set:
            raise CancelledError

    @contextmanager
    def calling(self, callback: Callable[[], object]) -> Iterator[None]:
        """Have `callback` called, on the thread that sets, should that happen within the block; at once if it has."""
        with self._lock:
            if not self._is_set:
                self._callbacks.append(callback)
        if self._is_set:
            callback()
        try:
            yield
        finally:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)
