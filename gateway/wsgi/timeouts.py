"""Timeouts of request bodies and responses, enforced on the socket.

gunicorn's threads read from and write to blocking sockets, and would wait without end for the next byte of a body or
for a client that does not read. Here a deadline shuts down a socket that is late or too slow. `worker` has the timeouts
of connections that have sent no whole request yet.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.wsgi.running_clock import RunningClock

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# A view sets this key in the WSGI environment of a blocked client: the rest of its body is not read.
CLOSE_WITHOUT_READING = "superres.close_without_reading"
# Seconds in which the rest of a rejected body is read and discarded: browsers show no response before they have sent
# their whole body.
LINGER_S = 5.0
# Threads that discard bodies at once. Without a maximum, one client that announces bodies and never sends them would
# hold all threads.
MAX_LINGERING = 8
# Seconds after which a body must arrive at a minimum rate: half of what its length needs to arrive within
# body_timeout_s, and at least MIN_BODY_BYTES_PER_S. So a client that announces much and sends little holds neither
# memory nor a thread for long.
BODY_GRACE_S = 10.0
MIN_BODY_BYTES_PER_S = 1_000.0
# A quarter of a megabit per second. A response must be read within the time that its length needs at this rate, plus
# one idle timeout. Otherwise a client that reads single bytes would hold a thread as long as it likes.
MIN_RESPONSE_BYTES_PER_S = 32_768.0
# Size of the first reads. gunicorn returns only when it has all the bytes it was asked for; until then the rate is
# unknown.
FIRST_READ_BYTES = 4_096
# Size of the reads that discard a body.
_DISCARD_BYTES = 65_536
# Maximum of seconds between two looks at the deadlines, so that the clock does not take a wait for a freeze.
_TICK_S = 1.0

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Deadline:
    """A time at which a socket is shut down. It can be cancelled or extended until then."""

    sock: socket.socket
    how: int
    due: float
    """Time at which the socket is shut down. It may be extended at any time."""
    has_expired: bool = False


class SocketDeadlines:
    """Shuts down sockets at their deadlines, which wakes the threads that wait on them. One thread for all sockets."""

    def __init__(self) -> None:
        self.clock = RunningClock()
        """The clock of all deadlines. While the process is frozen it stands still: no client is late because of it."""
        self._running: set[Deadline] = set()
        self._earliest = math.inf
        self._changed = threading.Condition()
        threading.Thread(target=self._watch, name="socket-deadlines", daemon=True).start()

    def start(self, sock: socket.socket, seconds: float, how: int) -> Deadline:
        """Shut down the socket in `seconds`. After SHUT_RD it can still send a response."""
        deadline = Deadline(sock, how, self.clock() + seconds)
        with self._changed:
            self._running.add(deadline)
            if deadline.due < self._earliest:
                self._changed.notify()
        return deadline

    def cancel(self, deadline: Deadline) -> None:
        """Drop a deadline. After this call it cannot expire."""
        with self._changed:
            self._running.discard(deadline)

    def expire_reads(self) -> None:
        """End all waits for bodies now, as if their time were up: the server stops."""
        with self._changed:
            for deadline in [each for each in self._running if each.how == socket.SHUT_RD]:
                self._expire(deadline)

    def _expire(self, deadline: Deadline) -> None:
        self._running.discard(deadline)
        deadline.has_expired = True
        shut_down(deadline.sock, deadline.how)

    def _watch(self) -> None:
        with self._changed:
            while True:
                now = self.clock()
                for deadline in [each for each in self._running if each.due <= now]:
                    self._expire(deadline)
                self._earliest = min((each.due for each in self._running), default=math.inf)
                self._changed.wait(min(self._earliest - now, _TICK_S) if self._running else None)


def shut_down(sock: socket.socket, how: int) -> None:
    """Shut down a socket's reading, writing or both. Does nothing when the client has closed it already."""
    with contextlib.suppress(OSError):
        sock.shutdown(how)


class RequestBodyTimeout:
    """WSGI middleware: reading a body that is late or too slow raises TimeoutError."""

    def __init__(
        self,
        app: WSGIApplication,
        deadlines: SocketDeadlines,
        *,
        body_timeout_s: float,
        idle_timeout_s: float,
        max_linger_bytes: int,
    ) -> None:
        self._app = app
        self._deadlines = deadlines
        self._body_timeout_s = body_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._max_linger_bytes = max_linger_bytes
        self._lingering = threading.BoundedSemaphore(MAX_LINGERING)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request."""
        sock = environ.get("gunicorn.socket")
        has_body = environ.get("CONTENT_LENGTH", "0") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ
        if sock is None or not has_body:
            return self._app(environ, start_response)
        length = int(environ["CONTENT_LENGTH"]) if environ.get("CONTENT_LENGTH", "").isdigit() else None
        body = _TimedBody(
            environ["wsgi.input"], sock, self._deadlines, self._body_timeout_s, self._idle_timeout_s, length
        )
        is_http_1_1 = environ.get("SERVER_PROTOCOL") != "HTTP/1.0"  # RFC 9110 section 10.1.1: 1.0 ignores the header
        body.expects_continue = is_http_1_1 and environ.get("HTTP_EXPECT", "").lower() == "100-continue"
        environ["wsgi.input"] = body
        response = self._app(environ, start_response)
        return _ResponseWithCallback(
            response, lambda: self._finish(body, 0 if environ.get(CLOSE_WITHOUT_READING) else self._max_linger_bytes)
        )

    def _finish(self, body: _TimedBody, max_bytes: int) -> None:
        if body.has_ended or body.expects_continue or not self._lingering.acquire(blocking=False):
            body.finish(0)
            return
        try:
            body.finish(max_bytes)
        finally:
            self._lingering.release()


class ResponseTimeout:
    """WSGI middleware: the connection of a client that reads a response too slowly is closed."""

    def __init__(self, app: WSGIApplication, deadlines: SocketDeadlines, *, idle_timeout_s: float) -> None:
        self._app = app
        self._deadlines = deadlines
        self._idle_timeout_s = idle_timeout_s

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request."""
        response = self._app(environ, start_response)
        sock = environ.get("gunicorn.socket")
        return response if sock is None else _TimedResponse(response, sock, self._deadlines, self._idle_timeout_s)


class _TimedResponse:
    def __init__(
        self, inner: Iterable[bytes], sock: socket.socket, deadlines: SocketDeadlines, idle_timeout_s: float
    ) -> None:
        self._inner = inner
        self._sock = sock
        self._deadlines = deadlines
        self._idle_timeout_s = idle_timeout_s
        # Of the item that is being sent. The socket itself has no timeout: that would run on while we are frozen.
        self._deadline: Deadline | None = None

    def __iter__(self) -> Iterator[bytes]:
        remaining_s = self._idle_timeout_s
        for item in self._inner:
            remaining_s += len(item) / MIN_RESPONSE_BYTES_PER_S
            if remaining_s <= 0:
                raise TimeoutError("the client read the response too slowly")
            began = self._deadlines.clock()
            self._begin(min(remaining_s, self._idle_timeout_s))  # for the whole item, not for each byte
            yield item
            self._end()
            remaining_s -= self._deadlines.clock() - began  # the time in which we make the next item does not count
        self._begin(self._idle_timeout_s)  # for the headers of a response without items, and for the last chunk

    def close(self) -> None:
        """Called by gunicorn once the response has been sent or abandoned."""
        self._end()
        if hasattr(self._inner, "close"):
            self._inner.close()

    def _begin(self, seconds: float) -> None:
        self._deadline = self._deadlines.start(self._sock, seconds, socket.SHUT_RDWR)

    def _end(self) -> None:
        if self._deadline is not None:
            self._deadlines.cancel(self._deadline)
            if self._deadline.has_expired:
                _log.info("a client read its response too slowly: the connection was closed")
            self._deadline = None


class _TimedBody:
    """`wsgi.input` with a deadline."""

    def __init__(
        self,
        inner: Any,
        sock: socket.socket,
        deadlines: SocketDeadlines,
        timeout_s: float,
        idle_timeout_s: float,
        length: int | None,
    ) -> None:
        self._inner = inner
        self._remaining_bytes = length  # None without Content-Length
        self._sock = sock
        self._deadlines = deadlines
        self._timeout_s = timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._deadline: Deadline | None = None
        self._began = 0.0
        # Time at which what has arrived must be more, by the minimum rate and `timeout_s`.
        self._paced_due = 0.0
        self._received_bytes = 0
        self._min_bytes_per_s = max(MIN_BODY_BYTES_PER_S, (length or 0) / (2 * timeout_s))
        self.has_ended = False
        self.expects_continue = False
        """Whether the client sends its body only after the interim response 100 Continue."""

    def read(self, size: int) -> bytes:
        if self.expects_continue:
            self.expects_continue = False  # only now, after every check that needs no body
            sending = self._deadlines.start(self._sock, self._idle_timeout_s, socket.SHUT_RDWR)
            try:
                self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            finally:
                self._deadlines.cancel(sending)
        if self._deadline is None:
            self._began = self._deadlines.clock()
            first_s = min(self._timeout_s, BODY_GRACE_S)
            self._paced_due = self._began + first_s
            self._deadline = self._deadlines.start(self._sock, min(first_s, self._idle_timeout_s), socket.SHUT_RD)
        try:
            size = min(size, max(FIRST_READ_BYTES, self._received_bytes // 4))
            # One read has one idle timeout, or the time that it takes at the minimum rate.
            idle_s = max(self._idle_timeout_s, size / self._min_bytes_per_s)
            self._deadline.due = min(self._paced_due, self._deadlines.clock() + idle_s)
            data: bytes = self._inner.read(size)
        except Exception as error:
            self.has_ended = True
            if self._deadline.has_expired:
                raise TimeoutError("the request body did not arrive in time") from error
            raise
        if self._deadline.has_expired:
            self.has_ended = True
            raise TimeoutError("the request body did not arrive in time")
        self._received_bytes += len(data)
        rate_limit_s = BODY_GRACE_S + self._received_bytes / self._min_bytes_per_s
        self._paced_due = self._began + min(self._timeout_s, rate_limit_s)
        if self._remaining_bytes is not None:
            self._remaining_bytes -= len(data)
        if not data or self._remaining_bytes == 0:
            self.has_ended = True
            self._cancel_deadline()  # the work that follows may take longer than the body
        return data

    def finish(self, max_bytes: int) -> None:
        """Read and discard the rest, up to `max_bytes` and for LINGER_S, so that the client sees the response."""
        self._cancel_deadline()
        if not max_bytes and not self.has_ended:
            shut_down(self._sock, socket.SHUT_RD)  # otherwise gunicorn would wait for the rest before the next request
        self._timeout_s = LINGER_S
        with contextlib.suppress(Exception):  # the response has been sent: nobody needs the error
            while not self.has_ended and max_bytes > 0:
                max_bytes -= len(self.read(min(_DISCARD_BYTES, max_bytes)))
        self._cancel_deadline()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadlines.cancel(self._deadline)
            self._deadline = None


class _ResponseWithCallback:
    """A response that calls a function after it has been sent."""

    def __init__(self, inner: Iterable[bytes], callback: Callable[[], None]) -> None:
        self._inner = inner
        self._callback = callback

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._inner)

    def close(self) -> None:
        """Called by gunicorn once the response has been sent."""
        if hasattr(self._inner, "close"):
            self._inner.close()
        self._callback()
