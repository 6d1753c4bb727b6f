"""gunicorn's threaded worker with limits on what a connection can hold before and after its requests.

A thread serves a request only once its headers have arrived, and two threads serve health checks alone. Until then a
connection waits in the poller, for at most `idle_timeout_s`. When the table of connections is full, the connection that
has waited longest is closed. Requests that gunicorn rejects get a problem+json response, and closing a connection does
not block the loop that serves all others.

Every private part of gunicorn in use is listed in tests/unit/gateway/wsgi/test_gunicorn_internals.py.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import secrets
import selectors
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from gunicorn.glogging import Logger
from gunicorn.http.errors import (
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.workers.gthread import ThreadWorker

from gateway.config.origins import parse_public_url
from gateway.logs import log_request
from gateway.problems import INTERNAL_DETAIL, BadRequest, HeadTooLong, InternalError, Problem
from gateway.wsgi.timeouts import LINGER_S, shut_down

_log = logging.getLogger(__name__)
_requests = logging.getLogger("gateway.request")

# Maximum of the request line and all headers together; browsers send 1 to 4 kB.
MAX_HEADER_BYTES = 32_768
# Threads for health checks alone. Without them, clients that hold every other thread would make the cluster restart a
# gateway that works.
HEALTH_THREADS = 2
_END_OF_HEADERS = b"\r\n\r\n"
_HEALTH_REQUESTS = (b"GET /healthz ", b"GET /readyz ")
_BODY_HEADERS = (b"\r\ncontent-length:", b"\r\ntransfer-encoding:")


class GatewayWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's threaded worker with a timeout for every wait. `app` is a `gateway.server.Server`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Sockets whose request is HEAD, also where gunicorn cannot parse it: their responses have no body.
        self._head_request_sockets: set[socket.socket] = set()

    def init_signals(self) -> None:
        """Set the signal handlers. Signals to a whole process group, such as Ctrl-C, are the arbiter's business."""
        super().init_signals()
        for sign in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(sign, signal.SIG_IGN)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to drain: go on serving until the requests have finished (SIGTERM)."""
        if self.app.drain is None:  # not serving yet
            super().handle_exit(sig, frame)
        else:
            self.app.drain.begin()

    def handle_quit(self, sig: int, frame: Any) -> None:
        """End the requests and stop (SIGQUIT). gunicorn's method would exit from within this handler."""
        if self.app.drain is None:
            super().handle_exit(sig, frame)
        else:
            self.app.drain.end_now()

    def leave_loop(self) -> None:
        """Stop accepting connections and end. Called by another thread."""
        self.alive = False
        self.method_queue.defer(lambda: None)  # wakes the loop

    def accept(self, listener: Any) -> None:
        """Accept a connection. In a full table it replaces the idle connection that has waited longest."""
        if self.nr_conns >= self.worker_connections - 1:
            for idle, close_expired in (
                (self.pending_conns, self.murder_pending),
                (self.keepalived_conns, self.murder_keepalived),
            ):
                if idle:
                    idle[0].timeout = -math.inf
                    close_expired()
                    break
        super().accept(listener)

    def get_thread_pool(self) -> ThreadPoolExecutor:
        """Make the threads, and a separate pool for health checks. Called by gunicorn."""
        self._health_pool = ThreadPoolExecutor(HEALTH_THREADS, "health")
        pool: ThreadPoolExecutor = super().get_thread_pool()
        return pool

    def enqueue_req(self, conn: Any) -> None:
        """Give a connection to a thread when its headers have arrived, otherwise to the poller."""
        conn.sock.settimeout(0)
        if _has_headers(conn):
            conn.data_ready = True
            pool = self._health_pool if conn.is_for_health else self.tpool
            served = pool.submit(self.handle, conn)
            served.add_done_callback(lambda future: self.method_queue.defer(self.finish_request, conn, future))
            return
        conn.timeout = self.app.deadlines.clock() + self.app.settings.idle_timeout_s
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, lambda sock: self.on_pending_socket_readable(conn, sock))

    def on_pending_socket_readable(self, conn: Any, client: Any) -> None:
        """Give a connection to a thread once all headers have arrived."""
        if _has_headers(conn):
            super().on_pending_socket_readable(conn, client)

    def murder_pending(self) -> None:
        """Close connections whose headers did not arrive in time, or at the end. Called once a second at least."""
        now = self.app.deadlines.clock()  # not gunicorn's clock, which goes on while we are frozen
        while self.pending_conns and (not self.alive or self.pending_conns[0].timeout <= now):
            conn = self.pending_conns.popleft()
            with contextlib.suppress(OSError):
                conn.sock.recv(MAX_HEADER_BYTES)  # closing with unread bytes would send a reset
            with contextlib.suppress(OSError, KeyError, ValueError):
                self.poller.unregister(conn.sock)
            self.nr_conns -= 1
            conn.close()

    def handle(self, conn: Any) -> Any:
        """Serve one request of a connection. Its headers must be readable within the idle timeout."""
        deadlines = self.app.deadlines
        conn.deadline = deadlines.start(conn.sock, self.app.settings.idle_timeout_s, socket.SHUT_RDWR)
        if conn.is_head_request:
            self._head_request_sockets.add(conn.sock)
        try:
            if conn.has_too_long_headers:
                self.handle_error(None, conn.sock, conn.client, LimitRequestHeaders("no end"))
            keepalive = not conn.has_too_long_headers and super().handle(conn)
        finally:
            deadlines.cancel(conn.deadline)
            self._head_request_sockets.discard(conn.sock)
        if not keepalive:
            # Otherwise the worker's only loop waits up to 2 s for this client to close its side (27.0.1: twenty clients
            # that did not kept everybody else waiting for 40 s). An unread body has had its LINGER_S before.
            shut_down(conn.sock, socket.SHUT_RDWR)
        return keepalive

    def _keepalive_after(self, conn: Any, keepalive: Any) -> bool:
        """Return whether another request may follow: not after a body that ended before its announced length.

        Its reading was shut down (`timeouts`), but the kernel still accepts what arrives, and gunicorn would read it
        without a bound as the rest of that body (27.0.1: 90 MB of a blocked client in 18 of 1,500 tries).
        """
        may_follow = super()._keepalive_after(conn, keepalive)
        return bool(may_follow) and not getattr(conn.parser.mesg.body.reader, "length", 0)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Serve a request whose headers have been read. Every later wait for the client has a timeout of its own."""
        self.app.deadlines.cancel(conn.deadline)
        if codings := [
            value for name, value in req.headers if name == "TRANSFER-ENCODING" and value.lower() != "chunked"
        ]:
            # gunicorn takes "gzip, chunked" for chunks alone, and would pass on compressed bytes.
            raise UnsupportedTransferCoding(codings[0])
        asked_to_close = req.should_close
        req.should_close = lambda: self.app.is_draining or asked_to_close()  # asked when the response is sent
        conn.sock.settimeout(None)  # `timeouts` has a deadline for each read and write
        req._expected_100_continue = False  # noqa: SLF001 - `timeouts` sends 100 Continue, after the access control
        try:
            return super().handle_request(req, conn)
        except TimeoutError:
            _log.info("a client read its response too slowly: the connection was closed")
            return False
        finally:
            req.should_close = asked_to_close  # asked again before the next request, which gets its own response

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:  # noqa: ARG002
        """Send a problem+json response for a request that never reached the application, and log it."""
        request_id = secrets.token_hex(8)
        problem = _problem_from_gunicorn_error(exc)
        if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.error("%s: %s", request_id, type(exc).__name__, exc_info=exc)
        prefix = parse_public_url(self.app.settings.public_url).prefix
        body = json.dumps(problem.body(request_id, prefix)).encode()
        log_request(
            _requests,
            request_id=request_id,
            method="-",
            route="-",
            status=problem.status,
            size=len(body),
            address=addr[0] if isinstance(addr, tuple) else "",
            problem=problem.slug,
            cause=type(exc).__name__,
        )
        headers = (
            f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n"
            f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n"
            f"X-Request-Id: {request_id}\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
            "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\nConnection: close\r\n\r\n"
        )
        with contextlib.suppress(OSError):  # the client has disconnected
            client.settimeout(LINGER_S)
            client.sendall(headers.encode("ascii") + (b"" if client in self._head_request_sockets else body))


def _problem_from_gunicorn_error(error: BaseException) -> Problem:
    if isinstance(error, LimitRequestLine | LimitRequestHeaders):
        return HeadTooLong(
            "The request line may have 4,094 bytes, each header 8,190, and all of them together "
            f"{MAX_HEADER_BYTES:,}; this request has more. Send fewer or shorter headers."
        )
    if isinstance(error, ParseException) and not isinstance(error, InvalidResponseHeader | InvalidResponseHeaderName):
        return BadRequest("The request is malformed: its request line or its headers are invalid.")
    return InternalError(INTERNAL_DETAIL)


def _has_headers(conn: Any) -> bool:
    """Return whether a thread can go on: all headers have arrived, or too many, or the client has closed its side.

    Otherwise sets the socket so that it polls as readable only when more bytes arrive than it holds now.
    """
    conn.has_too_long_headers = conn.is_for_health = False
    read_ahead = conn.parser.unreader.buf.getvalue() if conn.parser else b""
    conn.is_head_request = read_ahead.startswith(b"HEAD ")
    try:
        peeked = conn.sock.recv(MAX_HEADER_BYTES, socket.MSG_PEEK)
    except BlockingIOError:
        return _END_OF_HEADERS in read_ahead
    except OSError:
        return True
    received = read_ahead + peeked
    conn.is_head_request = received.startswith(b"HEAD ")
    conn.has_too_long_headers = len(peeked) >= MAX_HEADER_BYTES and _END_OF_HEADERS not in received
    # The first request of a connection, without a body: no client can hold such a thread by sending or reading slowly.
    conn.is_for_health = (
        not conn.parser
        and peeked.startswith(_HEALTH_REQUESTS)
        and not any(header in peeked.lower() for header in _BODY_HEADERS)
    )
    is_due = not peeked or conn.has_too_long_headers or _END_OF_HEADERS in received
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1 if is_due else len(peeked) + 1)
    return is_due


class QuietLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Sends gunicorn's log records to the root logger. The application logs the requests itself."""

    def setup(self, cfg: Any) -> None:
        """Attach no handlers."""
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log.propagate = True
        self.error_log.setLevel("WARNING")

    def reopen_files(self) -> None:
        """Do nothing on SIGUSR1: the log's handler opens the file again whenever it was renamed."""
