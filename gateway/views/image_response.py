"""How pictures leave: in slices, so that a slow reader is measured slice by slice, and with a name to save them by."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from flask import Response

SLICE_BYTES = 131_072
"""Each slice must leave within `idle_timeout_s`: 128 KiB in 20 s is 6.5 KB/s, slower than is worth waiting for."""


def send_picture(data: bytes, media_type: str, filename: str, *, as_download: bool) -> Response:
    """Return an answer with an image file."""
    response = Response(_slices(data), mimetype=media_type)
    response.content_length = len(data)
    kind = "attachment" if as_download else "inline"
    response.headers.set("Content-Disposition", kind, **_names_of(filename))
    # Bytes that a visitor sent may come back from our origin: as an image, and as nothing else.
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response


def _names_of(filename: str) -> dict[str, str]:
    """Return the parameters that carry a name: headers are ASCII, other letters go into filename* (RFC 6266)."""
    names = {"filename": filename.encode("ascii", "replace").decode().replace("?", "_")}
    if not filename.isascii():
        names["filename*"] = f"UTF-8''{quote(filename, safe='')}"
    return names


def _slices(data: bytes) -> Iterator[bytes]:
    view = memoryview(data)
    for start in range(0, len(view), SLICE_BYTES):
        yield bytes(view[start : start + SLICE_BYTES])
