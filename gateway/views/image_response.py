"""Responses with an image: sent in slices, so that the idle timeout applies to each slice, and with a file name.

A stored image can be downloaded in ranges (RFC 9110 section 14), so that a client continues an interrupted download.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from urllib.parse import quote

from flask import Response, request
from werkzeug.datastructures import ContentRange
from werkzeug.http import parse_range_header

from gateway.problems import RangeNotSatisfiable

# Each slice must be sent within `idle_timeout_s`: 128 KiB in 20 s is 6.5 kB/s, a lower bound for useful connections.
SLICE_BYTES = 131_072

ANY_BYTES = "application/octet-stream"


def send_image(
    data: bytes, media_type: str, filename: str, *, as_download: bool, stored_as: str | None = None
) -> Response:
    """Return a response with an image file, as bytes without a type for a client that prefers application/octet-stream.

    With the id under which it is stored, also the range that the request asks for. Raises RangeNotSatisfiable.
    """
    span = range(len(data))
    response = Response(mimetype=ANY_BYTES if request.accept_mimetypes.best == ANY_BYTES else media_type)
    if stored_as is not None:
        # What an id names never changes. A hash of it, because the id is a secret and an ETag is none.
        response.set_etag(hashlib.sha256(stored_as.encode()).hexdigest()[:24])
        response.accept_ranges = "bytes"
        if found := _find_range(response.get_etag()[0] or "", len(data)):
            span, response.status_code = found, 206
            response.content_range = ContentRange("bytes", span.start, span.stop, len(data))
    response.response = slices(memoryview(data)[span.start : span.stop])
    response.content_length = len(span)
    disposition = "attachment" if as_download else "inline"
    response.headers.set("Content-Disposition", disposition, **_filename_parameters(filename))
    # Bytes that a client uploaded are served from our origin: let browsers treat them as an image and nothing else.
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response


def _find_range(etag: str, length: int) -> range | None:
    """Return the one range of bytes that the request asks for; None for the whole file. Raises RangeNotSatisfiable.

    Other units, invalid headers and several ranges are ignored, as RFC 9110 section 14.2 allows.
    """
    if request.method != "GET":
        return None
    condition = request.if_range
    if condition is not None and (condition.date is not None or (condition.etag or etag) != etag):
        return None  # a date is never sent, and another ETag is another file
    ranges = parse_range_header(request.headers.get("Range"))
    if ranges is None or ranges.units != "bytes" or len(ranges.ranges) != 1:
        return None
    span = ranges.range_for_length(length)
    if span is None:
        raise RangeNotSatisfiable(
            f"The requested range lies beyond the end of the file of {length:,} bytes. Send the request without Range.",
            headers={"Content-Range": f"bytes */{length}"},
        )
    return range(*span)


def _filename_parameters(filename: str) -> dict[str, str]:
    """Return the parameters of Content-Disposition: ASCII in filename, other letters in filename* (RFC 6266)."""
    names = {"filename": filename.encode("ascii", "replace").decode().replace("?", "_")}
    if not filename.isascii():
        names["filename*"] = f"UTF-8''{quote(filename, safe='')}"
    return names


def slices(view: memoryview) -> Iterator[bytes]:
    """Yield the bytes of a body in slices."""
    for start in range(0, len(view), SLICE_BYTES):
        yield bytes(view[start : start + SLICE_BYTES])
