"""Departures: notices that a client has closed its connection while its picture is being made, and stops the work.

A closed socket shows itself only to whoever reads or writes it; meanwhile a GPU would work for nobody. One thread looks
at all of them.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable

from gateway.cancellation import CancelToken

LOOK_EVERY_S = 0.2
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL


class DisconnectWatcher:
    """Watches sockets. Safe to use from several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: dict[int, CancelToken] = {}
        self._thread: threading.Thread | None = None

    def watch(self, sock: socket.socket | None, cancel_token: CancelToken) -> Callable[[], None]:
        """Set `stop` should the client leave before the function returned is called.

        Without a socket, as in tests without a server, nothing is watched.
        """
        if sock is None:
            return lambda: None
        number = sock.fileno()
        with self._changed:
            self._watched[number] = cancel_token
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="departures", daemon=True)
                self._thread.start()
            self._changed.notify()

        def forget() -> None:
            with self._changed:
                self._watched.pop(number, None)

        return forget

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._watched)
                gone = [cancel_token for number, cancel_token in self._watched.items() if _has_left(number)]
            for cancel_token in gone:
                cancel_token.cancel()
            time.sleep(LOOK_EVERY_S)


def _has_left(number: int) -> bool:
    """Whether the other side has closed, or half closed, which no browser or HTTP library does while it waits."""
    poll = select.poll()
    poll.register(number, select.POLLRDHUP)
    return any(event & _GONE for _, event in poll.poll(0))
