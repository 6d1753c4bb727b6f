"""Cancellation of one request from another thread, wherever the request is waiting.

A token is cancelled when the client disconnects, when its user presses Stop, or when the gateway shuts down. Code that
waits for the request registers a callback that wakes it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class CancelledError(Exception):
    """The work was cancelled because nobody waits for its result any more."""


class CancelToken:
    """A flag that is set once and never cleared. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._callbacks: list[Callable[[], object]] = []

    @property
    def is_cancelled(self) -> bool:
        """Whether the work should end."""
        return self._is_cancelled

    def cancel(self) -> None:
        """Cancel the work. Each registered callback is called once, on this thread."""
        with self._lock:
            self._is_cancelled = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def raise_if_cancelled(self) -> None:
        """Raise CancelledError once the token is cancelled."""
        if self._is_cancelled:
            raise CancelledError

    @contextmanager
    def on_cancel(self, callback: Callable[[], object]) -> Iterator[None]:
        """Call `callback` if the token is cancelled within the `with` block, or at once if it already is."""
        with self._lock:
            if not self._is_cancelled:
                self._callbacks.append(callback)
        if self._is_cancelled:
            callback()
        try:
            yield
        finally:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)
