"""What a connection may cost before and after its requests: gunicorn's threaded worker, made safe against strangers.

A thread is for a request whose head is there, and two are for health checks alone. Until then a connection waits with
the poller, for `idle_timeout_s` at most; when the table of connections is full, whoever has waited longest makes room.
What gunicorn refuses by itself is answered in our shape, and a connection that ends does not hold up the loop that
serves all others.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import selectors
import socket
import time
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

from gateway.problems import INTERNAL_DETAIL, BadRequest, HeadTooLong, InternalError, Problem
from gateway.wsgi.timeouts import LINGER_S, shut

_log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 32_768
"""Of a request's line and headers together; browsers send 1 to 4 kB."""
_END_OF_HEAD = b"\r\n\r\n"
HEALTH_THREADS = 2
"""Else whoever holds all others, from however many addresses, has the cluster restart a gateway that lives."""
_HEALTH = (b"GET /healthz ", b"GET /readyz ")
_BODY = (b"\r\ncontent-length:", b"\r\ntransfer-encoding:")


class GatewayWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's threaded worker with a time for everything. `app` is a `gateway.server.Server`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._asked_for_heads: set[socket.socket] = set()
        """Connections whose request is HEAD, also where gunicorn finds no request in it."""

    def accept(self, listener: Any) -> None:
        """Accept a connection; in a full table it takes the place of the one that has waited longest for nothing."""
        if self.nr_conns >= self.worker_connections - 1:
            for waiting, close_late in (
                (self.pending_conns, self.murder_pending),
                (self.keepalived_conns, self.murder_keepalived),
            ):
                if waiting:
                    waiting[0].timeout = 0.0
                    close_late()
                    break
        super().accept(listener)

    def get_thread_pool(self) -> ThreadPoolExecutor:
        """Make the threads, those for health apart; called by gunicorn."""
        self._health_pool = ThreadPoolExecutor(HEALTH_THREADS, "health")
        pool: ThreadPoolExecutor = super().get_thread_pool()
        return pool

    def enqueue_req(self, conn: Any) -> None:
        """Give a connection to a thread, or, until the whole head of a request is there, to the poller."""
        conn.sock.settimeout(0)
        if _has_head(conn):
            conn.data_ready = True
            pool = self._health_pool if conn.is_for_health else self.tpool
            served = pool.submit(self.handle, conn)
            served.add_done_callback(lambda future: self.method_queue.defer(self.finish_request, conn, future))
            return
        conn.timeout = time.monotonic() + self.app.settings.idle_timeout_s
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, lambda sock: self.on_pending_socket_readable(conn, sock))

    def on_pending_socket_readable(self, conn: Any, client: Any) -> None:
        """Give a connection to a thread once a whole head is there."""
        if _has_head(conn):
            super().on_pending_socket_readable(conn, client)

    def murder_pending(self) -> None:
        """Close connections that have not sent a head in time."""
        now = time.monotonic()
        for conn in self.pending_conns:
            if conn.timeout > now:
                conn.timeout = max(conn.timeout, now + 0.1)  # not due by gunicorn's later clock either
                break
            with contextlib.suppress(OSError):
                conn.sock.recv(MAX_HEAD_BYTES)  # what is left unread turns the end into a reset
        super().murder_pending()

    def handle(self, conn: Any) -> Any:
        """Serve a request of a connection; what gunicorn reads of its head has to be there in time."""
        conn.alarm = self.app.curfew.arm(conn.sock, self.app.settings.idle_timeout_s, socket.SHUT_RDWR)
        if conn.asks_for_head:
            self._asked_for_heads.add(conn.sock)
        try:
            if conn.head_is_too_long:
                self.handle_error(None, conn.sock, conn.client, LimitRequestHeaders("no end"))
            goes_on = not conn.head_is_too_long and super().handle(conn)
        finally:
            self.app.curfew.disarm(conn.alarm)
            self._asked_for_heads.discard(conn.sock)
        if not goes_on:
            # Else the worker's one loop would wait up to 2 s for this client to hang up (27.0.1: twenty connections
            # that did not kept everybody out for 40 s). Whose body was unread had its LINGER_S.
            shut(conn.sock, socket.SHUT_RDWR)
        return goes_on

    def _keepalive_after(self, conn: Any, keepalive: Any) -> bool:
        """Whether a next request may come: not after a body that ended before the length that was announced.

        Its reading was shut (`timeouts`), but the kernel takes what arrives all the same, and gunicorn would
        read it without a bound as the rest of that body (27.0.1: 90 MB of a blocked client in 18 of 1,500 tries).
        """
        goes_on = super()._keepalive_after(conn, keepalive)
        return bool(goes_on) and not getattr(conn.parser.mesg.body.reader, "length", 0)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Serve a request whose headers have been read. From here on each wait for the client has a time-out."""
        self.app.curfew.disarm(conn.alarm)
        if codings := [
            value for name, value in req.headers if name == "TRANSFER-ENCODING" and value.lower() != "chunked"
        ]:
            # gunicorn takes "gzip, chunked" for chunks alone, and would hand over what is still compressed.
            raise UnsupportedTransferCoding(codings[0])
        conn.sock.settimeout(self.app.settings.idle_timeout_s)
        req._expected_100_continue = False  # noqa: SLF001 - gateway.wsgi.timeouts says so, once the doors have been passed
        try:
            return super().handle_request(req, conn)
        except TimeoutError:
            _log.info("a client stopped reading its answer")
            return False

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:  # noqa: ARG002
        """Answer what never reached the application, in the shape of every other problem."""
        request_id = secrets.token_hex(8)
        problem = _problem_of(exc)
        if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.error("%s: %s", request_id, type(exc).__name__, exc_info=exc)
        else:
            _log.info("%s: refused before it was a request: %s", request_id, type(exc).__name__)
        body = json.dumps(problem.body(request_id)).encode()
        head = (
            f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n"
            f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n"
            f"X-Request-Id: {request_id}\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
            "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\nConnection: close\r\n\r\n"
        )
        with contextlib.suppress(OSError):  # nobody listens any more
            client.settimeout(LINGER_S)
            client.sendall(head.encode("ascii") + (b"" if client in self._asked_for_heads else body))


def _problem_of(error: BaseException) -> Problem:
    if isinstance(error, LimitRequestLine | LimitRequestHeaders):
        return HeadTooLong("The request's line or one of its headers is longer than is read. Send less.")
    if isinstance(error, ParseException) and not isinstance(error, InvalidResponseHeader | InvalidResponseHeaderName):
        return BadRequest("The request is malformed.")
    return InternalError(INTERNAL_DETAIL)


def _has_head(conn: Any) -> bool:
    """Whether a thread would find a whole head, the end, or more than a head may have; else poll for more than this."""
    conn.head_is_too_long = conn.is_for_health = False
    read_ahead = conn.parser.unreader.buf.getvalue() if conn.parser else b""
    conn.asks_for_head = read_ahead.startswith(b"HEAD ")
    try:
        seen = conn.sock.recv(MAX_HEAD_BYTES, socket.MSG_PEEK)
    except BlockingIOError:
        return _END_OF_HEAD in read_ahead
    except OSError:
        return True
    conn.asks_for_head = (read_ahead + seen).startswith(b"HEAD ")
    conn.head_is_too_long = len(seen) >= MAX_HEAD_BYTES and _END_OF_HEAD not in read_ahead + seen
    # The first of a connection, without a body: nobody can hold such a thread by what it does not send or read.
    conn.is_for_health = not conn.parser and seen.startswith(_HEALTH) and not any(one in seen.lower() for one in _BODY)
    is_due = not seen or conn.head_is_too_long or _END_OF_HEAD in read_ahead + seen
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1 if is_due else len(seen) + 1)
    return is_due


class QuietLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Lets gunicorn's lines go where all others go; requests are logged by the application."""

    def setup(self, cfg: Any) -> None:
        """Configure nothing."""
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log.propagate = True
        self.error_log.setLevel("WARNING")
