"""One POST of a webhook: to an address that was checked, within a time limit, without redirects and without a body.

`http.client` is used because it takes a connection that is already open; other clients resolve the host once more.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence

from gateway.webhooks.destination import Destination

# Seconds for the whole attempt. A receiver should respond first and do its work afterwards.
ATTEMPT_LIMIT_S = 15.0
# Of that for the connection to one address.
CONNECT_LIMIT_S = 5.0
# Addresses of a host that are tried.
_MAX_ADDRESSES = 3


class WebhookPostError(Exception):
    """No response arrived. The message says why, without the URL."""


def post(
    destination: Destination,
    addresses: Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    tls: ssl.SSLContext,
    limit_s: float = ATTEMPT_LIMIT_S,
) -> int:
    """Send a body and return the status of the response, whose body is not read. Raises WebhookPostError."""
    end = time.monotonic() + limit_s
    raw = _connect(destination, addresses, end, limit_s)
    # Shuts the connection down at the end of the time: a receiver that sends one byte a second never times out.
    watched = socket.socket(fileno=os.dup(raw.fileno()))
    timer = threading.Timer(max(0.0, end - time.monotonic()), _shut_down, (watched,))
    timer.daemon = True
    timer.start()
    connection: http.client.HTTPConnection | None = None
    try:
        if destination.scheme == "https":
            connection = http.client.HTTPSConnection(destination.host, destination.port, context=tls)
            connection.sock = raw = tls.wrap_socket(raw, server_hostname=destination.host)
        else:
            connection = http.client.HTTPConnection(destination.host, destination.port)
            connection.sock = raw
        connection.auto_open = 0
        connection.request("POST", destination.target, body, {**headers, "Connection": "close"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise WebhookPostError(_explain(error, is_over=time.monotonic() >= end, limit_s=limit_s)) from error
    finally:
        timer.cancel()
        timer.join()
        watched.close()
        if connection is not None:
            connection.close()
        raw.close()
    if time.monotonic() >= end:  # http.client takes the end of the connection for the end of the headers
        raise WebhookPostError(_no_response(limit_s))
    return status


def _connect(destination: Destination, addresses: Sequence[str], end: float, limit_s: float) -> socket.socket:
    """Return a connection to the first address that accepts one. Raises WebhookPostError."""
    reason = _no_response(limit_s)
    for address in addresses[:_MAX_ADDRESSES]:
        connect_s = min(end - time.monotonic(), CONNECT_LIMIT_S)
        if connect_s <= 0:
            break
        try:
            # The text is an address, so nothing is looked up here.
            connection = socket.create_connection((address, destination.port), connect_s)
        except OSError as error:
            reason = _explain(error, is_over=False, limit_s=min(limit_s, CONNECT_LIMIT_S))
        else:
            connection.settimeout(max(0.001, end - time.monotonic()))
            return connection
    raise WebhookPostError(reason)


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended meanwhile
        connection.shutdown(socket.SHUT_RDWR)


def _no_response(limit_s: float) -> str:
    return f"no response within {limit_s:g} seconds"


def _explain(error: Exception, *, is_over: bool, limit_s: float) -> str:
    """Return a reason in words that repeats nothing of what the receiver has sent."""
    if is_over or isinstance(error, TimeoutError):
        return _no_response(limit_s)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'the connection was closed'}"
    if isinstance(error, http.client.RemoteDisconnected | ConnectionError):
        return "the connection was refused" if isinstance(error, ConnectionRefusedError) else "the connection broke"
    if isinstance(error, http.client.HTTPException):
        return "the response is not valid HTTP"
    return f"the connection failed: {error.strerror or type(error).__name__}"  # type: ignore[attr-defined]
