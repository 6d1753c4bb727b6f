"""What the synchronous and the asynchronous transport share: requests and errors of httpx."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx

from superres.client.effects import ResponseHead, Send
from superres.client.errors import ClientError, ConnectionFailedError, InvalidUrlError, TlsError
from superres.client.service_url import ServiceUrl

DEFAULT_TIMEOUT_S = 60.0
"""Seconds without a byte after which a connection counts as lost. The gateway sends a heartbeat every 5 s."""

USER_AGENT = "superres-client"
"""Name of the client in each request."""

H = TypeVar("H", httpx.Client, httpx.AsyncClient)

FAILURES = (httpx.HTTPError, httpx.InvalidURL)
"""What httpx raises when a request or response fails."""

# Without connections that were used before: the service or a proxy may just close one, which loses the request.
LIMITS = httpx.Limits(max_keepalive_connections=0)


def open_http(make: Callable[[], H]) -> H:
    """Return the httpx client that `make` makes. Raises InvalidUrlError and TlsError for what the environment says."""
    try:
        return make()
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        raise InvalidUrlError(
            f"The proxy that the environment names cannot be used: {str(error).rstrip('.')}."
        ) from error
    except OSError as error:  # ssl.SSLError is one
        raise TlsError(
            f"The certificates that SSL_CERT_FILE or SSL_CERT_DIR name cannot be read: {error.strerror or error}."
        ) from error


def request_arguments(url: ServiceUrl, send: Send, timeout: httpx.Timeout) -> dict[str, Any]:
    """Return the arguments of httpx's `build_request`. Responses are not compressed: ranges count bytes of the file."""
    arguments: dict[str, Any] = {
        "method": send.method,
        "url": f"{url}{send.path}",
        "params": dict(send.params) or None,
        "headers": {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **send.headers},
        "content": send.body,
    }
    if send.silence_s and timeout.read is not None:
        read_s = max(timeout.read, send.silence_s)
        arguments["timeout"] = httpx.Timeout(timeout.connect, read=read_s, write=timeout.write, pool=timeout.pool)
    return arguments


def read_head(response: httpx.Response) -> ResponseHead:
    """Return status and headers of a response."""
    headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
    return ResponseHead(response.status_code, response.reason_phrase, headers)


def describe_failure(error: httpx.HTTPError | httpx.InvalidURL, url: ServiceUrl, timeout_s: float) -> ClientError:
    """Return the error of the client for one of httpx."""
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return InvalidUrlError(f"Invalid URL {url}: {error}.")
    if isinstance(error, httpx.ReadTimeout):
        return ConnectionFailedError(f"{url.netloc} sent nothing for {timeout_s:g} s.")
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return TlsError(
                f"The certificate of {url.host} cannot be verified: {cause.verify_message}. If its authority is your "
                "own, set SSL_CERT_FILE to the file with its certificate."
            )
        if isinstance(cause, ssl.SSLError):
            return TlsError(
                f"{url} does not speak TLS as expected ({cause.reason or cause}). Check the port, and whether the "
                "address begins with http:// instead."
            )
        cause = cause.__cause__ or cause.__context__
    reason = str(error).strip().rstrip(".") or type(error).__name__
    return ConnectionFailedError(f"The connection to {url.netloc} failed: {reason}.")
