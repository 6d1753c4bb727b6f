"""Timeouts of request bodies and responses, enforced on the socket.

gunicorn's threads read from and write to blocking sockets, and would wait without end for the next byte of a body or
for a client that does not read. Here a deadline shuts down a socket that is late or too slow. `worker` has the timeouts
of connections that have sent no whole request yet.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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


@dataclass(order=True)
class Deadline:
    """The moment at which a socket is shut down, unless it is cancelled or extended before."""

    scheduled: float
    """When the watching thread looks at it: its place in the heap."""
    number: int
    sock: socket.socket | None = field(compare=False)
    """None once cancelled."""
    how: int = field(compare=False)
    due: float = field(compare=False)
    """May be moved later at any time: the thread reads it when `scheduled` is reached."""
    has_expired: bool = field(default=False, compare=False)


class SocketDeadlines:
    """Shuts down sockets at their deadlines, which wakes the threads that wait on them. One thread for all sockets."""

    def __init__(self) -> None:
        self._heap: list[Deadline] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        threading.Thread(target=self._watch, name="socket-deadlines", daemon=True).start()

    def start(self, sock: socket.socket, seconds: float, how: int) -> Deadline:
        """Shut down the socket in `seconds`. After SHUT_RD it can still send a response."""
        with self._changed:
            due = time.monotonic() + seconds
            deadline = Deadline(due, next(self._numbers), sock, how, due)
            heapq.heappush(self._heap, deadline)
            self._changed.notify()
        return deadline

    def cancel(self, deadline: Deadline) -> None:
        """Drop a deadline. After this call it cannot expire."""
        with self._changed:
            deadline.sock = None

    def _watch(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                while self._heap and (self._heap[0].sock is None or self._heap[0].scheduled <= now):
                    deadline = heapq.heappop(self._heap)
                    if deadline.sock is not None and deadline.due > now:
                        deadline.scheduled = deadline.due
                        heapq.heappush(self._heap, deadline)
                    elif deadline.sock is not None:
                        deadline.has_expired = True
                        shut_down(deadline.sock, deadline.how)
                self._changed.wait(self._heap[0].scheduled - now if self._heap else None)


def shut_down(sock: socket.socket, how: int) -> None:
    """Shut down a socket's reading, writing or both. Does nothing when the client has closed it already."""
    with contextlib.suppress(OSError):
        sock.shutdown(how)


class RequestBodyTimeout:
    """WSGI middleware: reading a body that is late or too slow raises TimeoutError."""

    def __init__(
        self, app: WSGIApplication, deadlines: SocketDeadlines, *, body_timeout_s: float, max_linger_bytes: int
    ) -> None:
        self._app = app
        self._deadlines = deadlines
        self._body_timeout_s = body_timeout_s
        self._max_linger_bytes = max_linger_bytes
        self._lingering = threading.BoundedSemaphore(MAX_LINGERING)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request."""
        sock = environ.get("gunicorn.socket")
        has_body = environ.get("CONTENT_LENGTH", "0") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ
        if sock is None or not has_body:
            return self._app(environ, start_response)
        length = int(environ["CONTENT_LENGTH"]) if environ.get("CONTENT_LENGTH", "").isdigit() else None
        body = _TimedBody(environ["wsgi.input"], sock, self._deadlines, self._body_timeout_s, length)
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
    """WSGI middleware: a response that the client reads too slowly ends in TimeoutError."""

    def __init__(
        self, app: WSGIApplication, *, idle_timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._idle_timeout_s = idle_timeout_s
        self._clock = clock

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request."""
        response = self._app(environ, start_response)
        sock = environ.get("gunicorn.socket")
        return response if sock is None else _TimedResponse(response, sock, self._idle_timeout_s, self._clock)


class _TimedResponse:
    def __init__(
        self, inner: Iterable[bytes], sock: socket.socket, idle_timeout_s: float, clock: Callable[[], float]
    ) -> None:
        self._inner = inner
        self._sock = sock
        self._idle_timeout_s = idle_timeout_s
        self._clock = clock

    def __iter__(self) -> Iterator[bytes]:
        remaining_s = self._idle_timeout_s
        for item in self._inner:
            remaining_s += len(item) / MIN_RESPONSE_BYTES_PER_S
            if remaining_s <= 0:
                raise TimeoutError("the client read the response too slowly")
            self._sock.settimeout(min(remaining_s, self._idle_timeout_s))  # for the whole item, not for each byte
            began = self._clock()
            yield item
            remaining_s -= self._clock() - began  # the time in which we make the next item does not count

    def close(self) -> None:
        """Called by gunicorn once the response has been sent or abandoned."""
        self._sock.settimeout(self._idle_timeout_s)
        if hasattr(self._inner, "close"):
            self._inner.close()


class _TimedBody:
    """`wsgi.input` with a deadline."""

    def __init__(
        self, inner: Any, sock: socket.socket, deadlines: SocketDeadlines, timeout_s: float, length: int | None
    ) -> None:
        self._inner = inner
        self._remaining_bytes = length  # None without Content-Length
        self._sock = sock
        self._deadlines = deadlines
        self._timeout_s = timeout_s
        self._deadline: Deadline | None = None
        self._began = 0.0
        self._received_bytes = 0
        self._min_bytes_per_s = max(MIN_BODY_BYTES_PER_S, (length or 0) / (2 * timeout_s))
        self.has_ended = False
        self.expects_continue = False
        """Whether the client sends its body only after the interim response 100 Continue."""

    def read(self, size: int) -> bytes:
        if self.expects_continue:
            self.expects_continue = False  # only now, after every check that needs no body
            self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._deadline is None:
            self._began = time.monotonic()
            self._deadline = self._deadlines.start(self._sock, min(self._timeout_s, BODY_GRACE_S), socket.SHUT_RD)
        try:
            data: bytes = self._inner.read(min(size, max(FIRST_READ_BYTES, self._received_bytes // 4)))
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
        self._deadline.due = self._began + min(self._timeout_s, rate_limit_s)
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
