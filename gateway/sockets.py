"""How long a client may take, at the level of its socket: headers, body, answer.

gunicorn's threads read from blocking sockets and would wait for ever: for the rest of a header, for the next byte of a
body, for a reader that does not read. Here a curfew shuts a socket that is late, a connection that has said nothing yet
costs no thread, and what gunicorn refuses by itself is answered in our shape too.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import logging
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gunicorn.glogging import Logger
from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import ThreadWorker

from gateway.problems import INTERNAL_DETAIL, BadRequest, InternalError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_log = logging.getLogger(__name__)

HANG_UP = "superres.hang_up"
"""Set in the WSGI environment of a request whose client is not worth waiting for: it is blocked."""
LINGER_S = 5.0
"""A refused body is read and thrown away this long: browsers show no answer before they have sent everything."""


@dataclass(order=True)
class _Alarm:
    moment: float
    number: int
    sock: socket.socket | None = field(compare=False)
    how: int = field(compare=False)
    fired: bool = field(default=False, compare=False)


class Curfew:
    """Shuts sockets that are late, so that whoever waits on them goes on. One thread for any number of sockets."""

    def __init__(self) -> None:
        self._alarms: list[_Alarm] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        threading.Thread(target=self._watch, name="curfew", daemon=True).start()

    def arm(self, sock: socket.socket, seconds: float, how: int) -> _Alarm:
        """Shut the socket in that many seconds (SHUT_RD leaves it able to carry an answer), unless disarmed before."""
        with self._changed:
            alarm = _Alarm(time.monotonic() + seconds, next(self._numbers), sock, how)
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
                    if alarm.sock is not None:
                        alarm.fired = True
                        _shut(alarm.sock, alarm.how)
                self._changed.wait(self._alarms[0].moment - now if self._alarms else None)


def _shut(sock: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):  # the client was quicker
        sock.shutdown(how)


class TimedBodies:
    """WSGI middleware: a body that is not there in time makes its reader's `read` raise TimeoutError."""

    def __init__(self, app: WSGIApplication, curfew: Curfew, *, body_timeout_s: float, max_linger_bytes: int) -> None:
        self._app = app
        self._curfew = curfew
        self._body_timeout_s = body_timeout_s
        self._max_linger_bytes = max_linger_bytes

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request."""
        sock = environ.get("gunicorn.socket")
        has_body = environ.get("CONTENT_LENGTH", "0") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ
        if sock is None or not has_body:
            return self._app(environ, start_response)
        length = int(environ["CONTENT_LENGTH"]) if environ.get("CONTENT_LENGTH", "").isdigit() else None
        body = _TimedBody(environ["wsgi.input"], sock, self._curfew, self._body_timeout_s, length)
        environ["wsgi.input"] = body
        answer = self._app(environ, start_response)
        return _Answer(answer, lambda: body.finish(0 if environ.get(HANG_UP) else self._max_linger_bytes))


class _TimedBody:
    def __init__(self, inner: Any, sock: socket.socket, curfew: Curfew, timeout_s: float, length: int | None) -> None:
        self._inner = inner
        self._missing = length
        """Bytes that have yet to arrive; None where nobody announced how many."""
        self._sock = sock
        self._curfew = curfew
        self._timeout_s = timeout_s
        self._alarm: _Alarm | None = None
        self._ended = False

    def read(self, size: int) -> bytes:
        if self._alarm is None:
            self._alarm = self._curfew.arm(self._sock, self._timeout_s, socket.SHUT_RD)
        try:
            data: bytes = self._inner.read(size)
        except Exception as error:
            self._ended = True
            if self._alarm.fired:
                raise TimeoutError("the body was late") from error
            raise
        if self._alarm.fired:
            self._ended = True
            raise TimeoutError("the body was late")
        if self._missing is not None:
            self._missing -= len(data)
        if not data or self._missing == 0:
            self._ended = True
            self._disarm()  # the work that follows may take longer than a body may
        return data

    def finish(self, max_bytes: int) -> None:
        """Throw away what was not read, within bounds of bytes and time, so that the client gets to see the answer."""
        self._disarm()
        if not max_bytes:
            _shut(self._sock, socket.SHUT_RD)  # else gunicorn would wait for the rest before the next request
        self._timeout_s = LINGER_S
        with contextlib.suppress(Exception):  # whatever it is, the answer has been sent
            while not self._ended and max_bytes > 0:
                max_bytes -= len(self.read(min(65_536, max_bytes)))
        self._disarm()

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._curfew.disarm(self._alarm)
            self._alarm = None


class _Answer:
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


class TimedWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's threaded worker with a time for everything. `app` is a `gateway.server.Server`."""

    def enqueue_req(self, conn: Any) -> None:
        """Give a connection to a thread, or, while it has not sent anything, to the poller, where it costs none."""
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        conn.sock.settimeout(0)
        conn.timeout = time.monotonic() + self.app.settings.idle_timeout_s
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, lambda sock: self.on_pending_socket_readable(conn, sock))

    def handle(self, conn: Any) -> Any:
        """Serve a request of a connection that has begun to send one; its headers have to be there in time."""
        conn.alarm = self.app.curfew.arm(conn.sock, self.app.settings.idle_timeout_s, socket.SHUT_RDWR)
        try:
            return super().handle(conn)
        finally:
            self.app.curfew.disarm(conn.alarm)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Serve a request whose headers have been read. From here on each wait for the client has a time-out."""
        self.app.curfew.disarm(conn.alarm)
        conn.sock.settimeout(self.app.settings.idle_timeout_s)
        try:
            return super().handle_request(req, conn)
        except TimeoutError:
            _log.info("a client stopped reading its answer")
            return False

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:  # noqa: ARG002
        """Answer what never reached the application, in the shape of every other problem."""
        request_id = secrets.token_hex(8)
        if isinstance(exc, ParseException):
            problem: BadRequest | InternalError = BadRequest(
                "The request is malformed, or its line or headers are longer than is read."
            )
            _log.info("%s: malformed request: %s", request_id, type(exc).__name__)
        else:
            problem = InternalError(INTERNAL_DETAIL)
            _log.error("%s: %s", request_id, type(exc).__name__, exc_info=exc)
        body = json.dumps(problem.body(request_id)).encode()
        head = (
            f"HTTP/1.1 {problem.status} {'Bad Request' if problem.status == 400 else 'Internal Server Error'}\r\n"
            f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n"
            f"X-Request-Id: {request_id}\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
        )
        with contextlib.suppress(OSError):  # nobody listens any more
            client.settimeout(LINGER_S)
            client.sendall(head.encode("ascii") + body)


class QuietLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Lets gunicorn's lines go where all others go; requests are logged by the application."""

    def setup(self, cfg: Any) -> None:
        """Configure nothing."""
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log.propagate = True
        self.error_log.setLevel("WARNING")
