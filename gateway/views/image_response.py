"""Responses with an image: sent in slices, so that the idle timeout applies to each slice, and with a file name."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from flask import Response

# Each slice must be sent within `idle_timeout_s`: 128 KiB in 20 s is 6.5 kB/s, a lower bound for useful connections.
SLICE_BYTES = 131_072


def send_image(data: bytes, media_type: str, filename: str, *, as_download: bool) -> Response:
    """Return a response with an image file."""
    response = Response(_slices(data), mimetype=media_type)
    response.content_length = len(data)
    disposition = "attachment" if as_download else "inline"
    response.headers.set("Content-Disposition", disposition, **_filename_parameters(filename))
    # Bytes that a client uploaded are served from our origin: let browsers treat them as an image and nothing else.
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response


def _filename_parameters(filename: str) -> dict[str, str]:
    """Return the parameters of Content-Disposition: ASCII in filename, other letters in filename* (RFC 6266)."""
    names = {"filename": filename.encode("ascii", "replace").decode().replace("?", "_")}
    if not filename.isascii():
        names["filename*"] = f"UTF-8''{quote(filename, safe='')}"
    return names


def _slices(data: bytes) -> Iterator[bytes]:
    view = memoryview(data)
    for start in range(0, len(view), SLICE_BYTES):
        yield bytes(view[start : start + SLICE_BYTES])
