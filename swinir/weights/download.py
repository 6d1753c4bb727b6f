"""Downloads a URL into a file: resumes an interrupted download, retries, and limits bytes and waiting time.

Owns HTTP and the partial file; `fetch` checks the hash. Written by hand, because pooch 1.9 lost what matters here in a
trial (12 of the 26 download tests passed): it starts again from the first byte after every interruption (a checkpoint
has up to 142 MB), retries a 404, has no limit of bytes, and waits without end for a server that sends a byte now and
then. With our own downloader inside pooch, pooch would only rename the finished file, for eight more packages.
"""

from __future__ import annotations

import errno
import http.client
import re
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from swinir.errors import FetchError, UnreachableError

# Called with the bytes received so far and, when known, the total.
Progress = Callable[[int, int | None], None]

CHUNK_BYTES = 1 << 16
# Maximum size of a checkpoint; the largest published one has 142 MB.
MAX_FILE_BYTES = 1_000_000_000
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
# Errors of a connection that mean that the network is missing.
_NO_ROUTE = (errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EHOSTDOWN)
# Status codes that are worth another attempt.
_TRANSIENT_STATUSES = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class RetryPolicy:
    """When an attempt counts as failed, and how often the download is retried."""

    stall_s: float = 20.0
    """An attempt fails when fewer than `min_bytes` arrive in this time."""
    min_bytes: int = 4096
    """Minimum number of bytes in `stall_s`."""
    max_attempts: int = 5
    """Maximum number of failed attempts in a row that received no byte."""
    backoff_s: float = 1.0
    """Pause before the second attempt; doubled before each further one, up to 30 s."""


class _InterruptedError(Exception):
    """An attempt ended early; the bytes received are kept, and another attempt can succeed."""


def download(
    url: str,
    partial: Path,
    *,
    size_bytes: int | None,
    on_progress: Progress | None = None,
    policy: RetryPolicy | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Download ``url`` into ``partial``, from the end of what that file already holds; raises FetchError.

    ``size_bytes`` is the expected size when it is known: a file of any other size is an error.
    """
    if not url.startswith(("http://", "https://")):
        raise FetchError(f"Invalid URL {url}: it must begin with http:// or https://.")
    policy = policy or RetryPolicy()
    failures, pause_s = 0, policy.backoff_s
    while True:
        before = _length(partial)
        try:
            return _attempt(url, partial, size_bytes, on_progress, policy)
        except (_InterruptedError, OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code not in _TRANSIENT_STATUSES:
                raise FetchError(f"Download failed: {url} returned {error.code} {error.reason}.") from error
            received = _length(partial) - before
            if not received and not failures:
                _raise_if_hopeless(error, url)
            failures = 1 if received > 0 else failures + 1
            pause_s = policy.backoff_s if received > 0 else pause_s
            if failures >= policy.max_attempts:
                raise FetchError(
                    f"Download of {url} failed: {_reason(error)} ({failures} attempts in a row received nothing). "
                    f"{_length(partial):,} bytes are kept in {partial}. Run the command again to resume."
                ) from error
            sleep(min(pause_s, 30.0))
            pause_s *= 2


def _attempt(
    url: str,
    partial: Path,
    size_bytes: int | None,
    on_progress: Progress | None,
    policy: RetryPolicy,
) -> None:
    done = _length(partial)
    if size_bytes is not None and done >= size_bytes:
        if done == size_bytes:
            return
        partial.unlink()  # larger than the file can be
        done = 0
    headers = {"User-Agent": "serverless-superres", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    try:
        response = urllib.request.urlopen(  # noqa: S310 - the URL is from the zoo or the operator
            urllib.request.Request(url, headers=headers),  # noqa: S310
            timeout=policy.stall_s,
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and done:
            partial.unlink()
            raise _InterruptedError("the partial file is longer than the whole; starting again") from error
        raise
    with response:
        start, total = _read_range(response, done, url)
        _check_total(total, size_bytes, url)
        with partial.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            done = _receive(response, file, start, total, on_progress, policy)
    if total is not None and done < total:
        raise _InterruptedError(f"the connection was closed after {done:,} of {total:,} bytes")
    if size_bytes is not None and done != size_bytes:
        raise _InterruptedError(f"received {done:,} bytes, expected {size_bytes:,}")


def _read_range(response: Any, requested: int, url: str) -> tuple[int, int | None]:
    """Return the offset of the response body in the file and the size of the file, from status and headers."""
    length = response.headers.get("Content-Length", "")
    if response.status != 206:  # the server sends the whole file
        return 0, int(length) if length.isdigit() else None
    content_range = response.headers.get("Content-Range", "")
    found = _RANGE.fullmatch(content_range)
    if not found or int(found[1]) != requested:
        raise FetchError(f"Download failed: {url} returned {content_range!r} for a request of bytes from {requested}.")
    return requested, int(found[2])


def _check_total(total: int | None, size_bytes: int | None, url: str) -> None:
    if total is not None and size_bytes is not None and total != size_bytes:
        raise FetchError(f"{url} has {total:,} bytes, expected {size_bytes:,}: it is a different file.")
    if total is not None and total > MAX_FILE_BYTES:
        raise FetchError(f"{url} has {total:,} bytes; {MAX_FILE_BYTES:,} is the limit.")


def _receive(
    response: Any,
    file: BinaryIO,
    done: int,
    total: int | None,
    on_progress: Progress | None,
    policy: RetryPolicy,
) -> int:
    """Write the response body to the file and return its size; raises _InterruptedError when it is too slow."""
    limit = total if total is not None else MAX_FILE_BYTES
    since, arrived = time.monotonic(), 0
    while chunk := response.read1(CHUNK_BYTES):
        try:
            file.write(chunk)
        except OSError as error:  # such as a full disk: a retry does not help
            raise FetchError(f"Cannot write the download to {file.name}: {error.strerror}.") from error
        done, arrived = done + len(chunk), arrived + len(chunk)
        if done > limit:
            raise FetchError(f"Download failed: received more than {limit:,} bytes.")
        if on_progress:
            on_progress(done, total)
        now = time.monotonic()
        if now - since > policy.stall_s:
            if arrived < policy.min_bytes:
                raise _InterruptedError(f"received only {arrived} bytes in {policy.stall_s:g} s")
            since, arrived = now, 0
    return done


def _raise_if_hopeless(error: Exception, url: str) -> None:
    """Raise UnreachableError or FetchError for a first attempt whose failure no retry within seconds would change."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    host = urllib.parse.urlsplit(url).hostname
    if isinstance(reason, ssl.SSLCertVerificationError):
        raise FetchError(
            f"The certificate of {host} cannot be verified: {reason.verify_message}. Behind a proxy that inspects TLS, "
            "set SSL_CERT_FILE to the file with its certificate."
        ) from error
    has_no_route = isinstance(reason, OSError) and reason.errno in _NO_ROUTE
    is_silent = isinstance(error, urllib.error.URLError) and isinstance(reason, TimeoutError)  # while connecting
    if isinstance(reason, socket.gaierror) or has_no_route or is_silent:
        raise UnreachableError(f"{host} cannot be reached: {getattr(reason, 'strerror', None) or reason}.") from error


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return str(error) or type(error).__name__
