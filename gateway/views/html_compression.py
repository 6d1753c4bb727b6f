"""Compresses pages with gzip for browsers that accept it: to a quarter of their size.

That is safe although a page has a secret (the token of its form) and repeats parts of its address: the token belongs to
nobody, and everybody gets one by opening the page (`gateway.access.csrf`). So there is nothing to find out by lengths.
"""

from __future__ import annotations

import gzip

from flask import Flask, Response, request

_LEVEL = 6
# Less gains nothing: redirects and responses without a body.
_MIN_BYTES = 1_000


def register_html_compression(app: Flask) -> None:
    """Compress the HTML of every view."""
    app.after_request(_compress)


def _compress(response: Response) -> Response:
    if response.mimetype != "text/html" or response.is_streamed or "Content-Encoding" in response.headers:
        return response
    data = response.get_data()
    if len(data) < _MIN_BYTES:
        return response
    response.vary.add("Accept-Encoding")
    if request.accept_encodings["gzip"] > 0:
        response.set_data(gzip.compress(data, _LEVEL, mtime=0))
        response.content_encoding = "gzip"
    return response
