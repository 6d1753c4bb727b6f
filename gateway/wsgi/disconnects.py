"""Detects client disconnects while an image is upscaled, and cancels the work.

Only code that reads or writes a socket notices that it was closed, and nothing does while the backend works. One thread
polls the sockets of all running requests instead.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable

from gateway.cancellation import CancelToken

# Seconds from a disconnect to the cancellation, at the most.
POLL_INTERVAL_S = 0.2
_DISCONNECTED = select.POLLRDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL


class DisconnectWatcher:
    """Watches the sockets of running requests. Safe to use from several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tokens: dict[int, CancelToken] = {}  # by file descriptor
        self._thread: threading.Thread | None = None

    def watch(self, sock: socket.socket | None, cancel_token: CancelToken) -> Callable[[], None]:
        """Cancel `cancel_token` when the client disconnects, until the returned function is called.

        Without a socket, as in tests without a server, nothing is watched.
        """
        if sock is None:
            return lambda: None
        descriptor = sock.fileno()
        with self._changed:
            self._tokens[descriptor] = cancel_token
            if self._thread is None:
                self._thread = threading.Thread(target=self._poll, name="disconnects", daemon=True)
                self._thread.start()
            self._changed.notify()

        def unwatch() -> None:
            with self._changed:
                self._tokens.pop(descriptor, None)

        return unwatch

    def _poll(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._tokens)
                tokens = [token for descriptor, token in self._tokens.items() if _is_disconnected(descriptor)]
            for token in tokens:
                token.cancel()
            time.sleep(POLL_INTERVAL_S)


def _is_disconnected(descriptor: int) -> bool:
    """Whether the client has closed its side. Browsers and HTTP libraries keep it open while they wait."""
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    return any(event & _DISCONNECTED for _, event in poll.poll(0))
