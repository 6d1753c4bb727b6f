"""Downloads: one address into one file, resumed where it broke off, tried again, and never waiting for ever.

Owns HTTP and the partial file; what the bytes must hash to is `fetching`'s.
"""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from swinir.errors import FetchError

Progress = Callable[[int, int | None], None]
"""Told the bytes that are here and, where it is known, how many there will be."""

CHUNK_BYTES = 1 << 16
MAX_FILE_BYTES = 1_000_000_000
"""Of any checkpoint; the largest published one has 142 MB."""
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Patience:
    """How long is waited for what."""

    stall_s: float = 20.0
    """Without `least_bytes` arriving in this time, an attempt is given up."""
    least_bytes: int = 4096
    attempts: int = 5
    """In a row without a byte gained; any progress starts the count anew."""
    first_pause_s: float = 1.0
    """Before the second attempt; doubled each time, up to 30 s."""


class _Interrupted(Exception):
    """An attempt ended early; what arrived is kept, and another attempt is worth it."""


def download(
    url: str,
    partial: Path,
    *,
    size_bytes: int | None,
    on_progress: Progress | None = None,
    patience: Patience | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Have the whole of ``url`` in ``partial``, going on where it ends; raise FetchFailed when it cannot be had.

    ``size_bytes`` is the length that is known beforehand: any other is refused. ``on_progress`` gets bytes and total.
    """
    if not url.startswith(("http://", "https://")):
        raise FetchError(f"{url} is no address of the web: it must begin with http:// or https://")
    patience = patience or Patience()
    failures, pause_s = 0, patience.first_pause_s
    while True:
        before = _length(partial)
        try:
            return _attempt(url, partial, size_bytes, on_progress, patience)
        except (_Interrupted, OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code not in _TRANSIENT:
                raise FetchError(f"{url} answers {error.code} {error.reason}") from error
            gained = _length(partial) - before
            failures = 1 if gained > 0 else failures + 1
            pause_s = patience.first_pause_s if gained > 0 else pause_s
            if failures >= patience.attempts:
                raise FetchError(
                    f"{url} could not be fetched: {_reason(error)} ({failures} attempts in a row without a byte). "
                    f"{_length(partial):,} bytes are kept in {partial}; the same command goes on from there."
                ) from error
            sleep(min(pause_s, 30.0))
            pause_s *= 2


def _attempt(
    url: str,
    partial: Path,
    size_bytes: int | None,
    on_progress: Progress | None,
    patience: Patience,
) -> None:
    done = _length(partial)
    if size_bytes is not None and done >= size_bytes:
        if done == size_bytes:
            return
        partial.unlink()  # more than there can be: not what we began
        done = 0
    headers = {"User-Agent": "serverless-superres", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    try:
        answer = urllib.request.urlopen(  # noqa: S310 - the address is the table's or the operator's
            urllib.request.Request(url, headers=headers),  # noqa: S310
            timeout=patience.stall_s,
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and done:
            partial.unlink()
            raise _Interrupted("the partial file was longer than the whole; beginning again") from error
        raise
    with answer:
        begin, total = _place(answer, done, url)
        _check_total(total, size_bytes, url)
        with partial.open("r+b" if begin else "wb") as file:
            file.seek(begin)
            file.truncate()
            done = _receive(answer, file, begin, total, on_progress, patience)
    if total is not None and done < total:
        raise _Interrupted(f"the connection broke off after {done:,} of {total:,} bytes")
    if size_bytes is not None and done != size_bytes:
        raise _Interrupted(f"{done:,} bytes came, {size_bytes:,} were expected")


def _place(answer: Any, asked: int, url: str) -> tuple[int, int | None]:
    """Return (first byte of this answer, length of the whole), from its status and headers."""
    length = answer.headers.get("Content-Length", "")
    if answer.status != 206:  # the whole, whatever was asked
        return 0, int(length) if length.isdigit() else None
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if not found or int(found[1]) != asked:
        raise FetchError(f"{url} was asked for bytes from {asked} and sent {answer.headers.get('Content-Range')!r}")
    return asked, int(found[2])


def _check_total(total: int | None, size_bytes: int | None, url: str) -> None:
    if total is not None and size_bytes is not None and total != size_bytes:
        raise FetchError(f"{url} has {total:,} bytes; {size_bytes:,} were expected: it is another file")
    if total is not None and total > MAX_FILE_BYTES:
        raise FetchError(f"{url} has {total:,} bytes; {MAX_FILE_BYTES:,} is the limit")


def _receive(
    answer: Any,
    file: BinaryIO,
    done: int,
    total: int | None,
    on_progress: Progress | None,
    patience: Patience,
) -> int:
    """Write what comes until it ends; raise _Interrupted when it comes too slowly to ever end."""
    limit = total if total is not None else MAX_FILE_BYTES
    since, arrived = time.monotonic(), 0
    while chunk := answer.read1(CHUNK_BYTES):
        try:
            file.write(chunk)
        except OSError as error:  # a full disk is no reason to try again
            raise FetchError(f"what came cannot be written: {error.strerror}") from error
        done, arrived = done + len(chunk), arrived + len(chunk)
        if done > limit:
            raise FetchError(f"more than {limit:,} bytes came")
        if on_progress:
            on_progress(done, total)
        now = time.monotonic()
        if now - since > patience.stall_s:
            if arrived < patience.least_bytes:
                raise _Interrupted(f"only {arrived} bytes came in {patience.stall_s:g} s")
            since, arrived = now, 0
    return done


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "nothing came in time"
    return str(error) or type(error).__name__
