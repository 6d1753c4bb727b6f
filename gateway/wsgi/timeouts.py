"""How long a client may take, at the level of its socket: headers, body, answer.

gunicorn's threads read from blocking sockets and would wait for ever: for the next byte of a body, for a reader that
does not read. Here a curfew shuts a socket that is late or comes too slowly. What a connection costs before its first
request has arrived: `worker`.
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

CLOSE_WITHOUT_READING = "superres.hang_up"
"""Set in the WSGI environment of a request whose client is not worth waiting for: it is blocked."""
LINGER_S = 5.0
"""A refused body is read and thrown away this long: browsers show no answer before they have sent everything."""
MAX_LINGERING = 8
"""Threads that do so at once: with more, one stranger who announces bodies and sends none would hold them all."""
BODY_GRACE_S = 10.0
"""After which a body has to come at a pace: half of what its length needs in body_timeout_s, and at least this one. So
whoever announces much and sends little holds neither memory nor a thread for long."""
LEAST_BYTES_PER_S = 1_000.0
ANSWER_BYTES_PER_S = 32_768.0
"""An answer has to be taken at this pace, a quarter of a megabit a second: it ends after what its length needs at that,
and one idle time. Else a reader of single bytes would hold a thread for as long as it likes."""
READ_BYTES = 4_096
"""At first: gunicorn returns only with all it was asked for, and until then nobody sees how quickly they come."""


@dataclass(order=True)
class _Alarm:
    moment: float
    number: int
    sock: socket.socket | None = field(compare=False)
    how: int = field(compare=False)
    due: float = field(compare=False)
    """May be put off at any time: whoever finds the alarm at its moment looks here."""
    fired: bool = field(default=False, compare=False)


class SocketDeadlines:
    """Shuts sockets that are late, so that whoever waits on them goes on. One thread for any number of sockets."""

    def __init__(self) -> None:
        self._alarms: list[_Alarm] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        threading.Thread(target=self._watch, name="curfew", daemon=True).start()

    def arm(self, sock: socket.socket, seconds: float, how: int) -> _Alarm:
        """Shut the socket in that many seconds (SHUT_RD leaves it able to carry an answer), unless disarmed before."""
        with self._changed:
            moment = time.monotonic() + seconds
            alarm = _Alarm(moment, next(self._numbers), sock, how, moment)
            heapq.heappush(self._alarms, alarm)
            self._changed.notify()
        return alarm

    def disarm(self, alarm: _Alarm) -> None:
        """Forget an alarm; once this has returned, it will not fire."""
        with self._changed:
            alarm.sock = None

    def _watch(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                while self._alarms and (self._alarms[0].sock is None or self._alarms[0].moment <= now):
                    alarm = heapq.heappop(self._alarms)
                    if alarm.sock is not None and alarm.due > now:
                        alarm.moment = alarm.due
                        heapq.heappush(self._alarms, alarm)
                    elif alarm.sock is not None:
                        alarm.fired = True
                        shut(alarm.sock, alarm.how)
                self._changed.wait(self._alarms[0].moment - now if self._alarms else None)


def shut(sock: socket.socket, how: int) -> None:
    """Shut a socket's reading, writing or both; no matter if the client was quicker."""
    with contextlib.suppress(OSError):
        sock.shutdown(how)


class RequestBodyTimeout:
    """WSGI middleware: a body that is not there in time makes its reader's `read` raise TimeoutError."""

    def __init__(
        self, app: WSGIApplication, curfew: SocketDeadlines, *, body_timeout_s: float, max_linger_bytes: int
    ) -> None:
        self._app = app
        self._curfew = curfew
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
        body = _TimedBody(environ["wsgi.input"], sock, self._curfew, self._body_timeout_s, length)
        knows_100 = environ.get("SERVER_PROTOCOL") != "HTTP/1.0"  # else it is to be ignored: RFC 9110 section 10.1.1
        body.is_awaited = knows_100 and environ.get("HTTP_EXPECT", "").lower() == "100-continue"
        environ["wsgi.input"] = body
        answer = self._app(environ, start_response)
        return _Response(
            answer, lambda: self._finish(body, 0 if environ.get(CLOSE_WITHOUT_READING) else self._max_linger_bytes)
        )

    def _finish(self, body: _TimedBody, max_bytes: int) -> None:
        if body.has_ended or body.is_awaited or not self._lingering.acquire(blocking=False):
            body.finish(0)
            return
        try:
            body.finish(max_bytes)
        finally:
            self._lingering.release()


class ResponseTimeout:
    """WSGI middleware: an answer that is not taken at a pace ends in TimeoutError, wherever it has got to."""

    def __init__(
        self, app: WSGIApplication, *, idle_timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._idle_timeout_s = idle_timeout_s
        self._clock = clock

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request."""
        answer = self._app(environ, start_response)
        sock = environ.get("gunicorn.socket")
        return answer if sock is None else _TimedResponse(answer, sock, self._idle_timeout_s, self._clock)


class _TimedResponse:
    def __init__(
        self, inner: Iterable[bytes], sock: socket.socket, idle_timeout_s: float, clock: Callable[[], float]
    ) -> None:
        self._inner = inner
        self._sock = sock
        self._idle_timeout_s = idle_timeout_s
        self._clock = clock

    def __iter__(self) -> Iterator[bytes]:
        left_s = self._idle_timeout_s
        for item in self._inner:
            left_s += len(item) / ANSWER_BYTES_PER_S
            if left_s <= 0:
                raise TimeoutError("the answer was not taken in time")
            self._sock.settimeout(min(left_s, self._idle_timeout_s))  # of sending all of the item, not of each byte
            began = self._clock()
            yield item
            left_s -= self._clock() - began  # what we take to make the next item is not the client's

    def close(self) -> None:
        """Called by gunicorn once the answer has been sent, or given up."""
        self._sock.settimeout(self._idle_timeout_s)
        if hasattr(self._inner, "close"):
            self._inner.close()


class _TimedBody:
    def __init__(
        self, inner: Any, sock: socket.socket, curfew: SocketDeadlines, timeout_s: float, length: int | None
    ) -> None:
        self._inner = inner
        self._missing = length
        """Bytes that have yet to arrive; None where nobody announced how many."""
        self._sock = sock
        self._curfew = curfew
        self._timeout_s = timeout_s
        self._alarm: _Alarm | None = None
        self._began = 0.0
        self._arrived = 0
        self._least_per_s = max(LEAST_BYTES_PER_S, (length or 0) / (2 * timeout_s))
        self.has_ended = False
        self.is_awaited = False
        """Whether the client sends its body only once it is told to: 100 Continue."""

    def read(self, size: int) -> bytes:
        if self.is_awaited:
            self.is_awaited = False  # only now, when every door that needs no body has been passed
            self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._alarm is None:
            self._began = time.monotonic()
            self._alarm = self._curfew.arm(self._sock, min(self._timeout_s, BODY_GRACE_S), socket.SHUT_RD)
        try:
            data: bytes = self._inner.read(min(size, max(READ_BYTES, self._arrived // 4)))
        except Exception as error:
            self.has_ended = True
            if self._alarm.fired:
                raise TimeoutError("the body was late") from error
            raise
        if self._alarm.fired:
            self.has_ended = True
            raise TimeoutError("the body was late")
        self._arrived += len(data)
        self._alarm.due = self._began + min(self._timeout_s, BODY_GRACE_S + self._arrived / self._least_per_s)
        if self._missing is not None:
            self._missing -= len(data)
        if not data or self._missing == 0:
            self.has_ended = True
            self._disarm()  # the work that follows may take longer than a body may
        return data

    def finish(self, max_bytes: int) -> None:
        """Throw away what was not read, within bounds of bytes and time, so that the client gets to see the answer."""
        self._disarm()
        if not max_bytes and not self.has_ended:
            shut(self._sock, socket.SHUT_RD)  # else gunicorn would wait for the rest before the next request
        self._timeout_s = LINGER_S
        with contextlib.suppress(Exception):  # whatever it is, the answer has been sent
            while not self.has_ended and max_bytes > 0:
                max_bytes -= len(self.read(min(65_536, max_bytes)))
        self._disarm()

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._curfew.disarm(self._alarm)
            self._alarm = None


class _Response:
    def __init__(self, inner: Iterable[bytes], after: Callable[[], None]) -> None:
        self._inner = inner
        self._after = after

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._inner)

    def close(self) -> None:
        """Called by gunicorn once the answer has been sent."""
        if hasattr(self._inner, "close"):
            self._inner.close()
        self._after()
