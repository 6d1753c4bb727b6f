"""Builds requests to the gateway and reads its responses."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from io import BytesIO
from typing import Any

import numpy as np
from flask.testing import FlaskClient
from PIL import Image as PilImage
from werkzeug.test import TestResponse

from gateway.access.csrf import CsrfTokens
from preprocessing.codec import Pixels
from testing.images import draw_photo, encode_png

FORM_SECRET = "the secret of the tests' forms"
PHOTO = encode_png(draw_photo(24, 32))
"""A PNG of 32 x 24 pixels."""


def form(data: bytes = PHOTO, filename: str = "photo.png", **fields: str) -> dict[str, Any]:
    """Return the arguments of a POST of the form with a valid CSRF token."""
    token = CsrfTokens(FORM_SECRET, 60).create()
    data_of_form = {"token": token, "image": (BytesIO(data), filename), **fields}
    return {"data": data_of_form, "content_type": "multipart/form-data"}


def api_form(data: bytes = PHOTO, filename: str = "photo.png", **fields: str) -> dict[str, Any]:
    """Return the arguments of a POST of a multipart form to the API."""
    return {"data": {"image": (BytesIO(data), filename), **fields}, "content_type": "multipart/form-data"}


def post_image(client: FlaskClient, key: str, data: bytes = PHOTO, query: str = "", **others: Any) -> TestResponse:
    """Post a raw image to the API."""
    headers = {"X-API-Key": key, **others.pop("headers", {})}
    return client.post(f"/api/v1/upscale{query}", data=data, headers=headers, **others)


def read_image(data: bytes) -> Pixels:
    """Decode the image of a response as [H, W, channels] or [H, W]."""
    return np.array(PilImage.open(BytesIO(data)))


def read_problem(response: TestResponse) -> tuple[int, str]:
    """Check the shape of a problem+json response and return (status, slug)."""
    check_problem(response)
    return response.status_code, response.get_json()["type"].removeprefix("/problems/")


def check_problem(response: TestResponse) -> None:
    """Fail unless the response is an RFC 9457 problem with the project's members."""
    assert response.content_type == "application/problem+json", response.get_data(as_text=True)[:300]
    body = response.get_json()
    assert {"type", "title", "status", "detail", "request_id"} <= body.keys()
    assert body["status"] == response.status_code
    assert body["request_id"] == response.headers["X-Request-Id"]
    assert body["detail"][0].isupper(), f"a detail is a sentence: {body['detail']!r}"
    assert body["detail"].endswith("."), f"a detail is a sentence: {body['detail']!r}"


class Elements(HTMLParser):
    """Collects the attributes of a page's elements by tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.by_tag: dict[str, list[dict[str, str | None]]] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.by_tag.setdefault(tag, []).append(dict(attrs))


def read_events(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Parse a text/event-stream into (event, data); comments are events without a name."""
    events = []
    for block in data.decode().removesuffix("\n\n").split("\n\n"):
        name, _, rest = block.partition("\n")
        body = json.loads(rest.removeprefix("data: ")) if rest else {}
        events.append((name.removeprefix("event: ") if rest else "", body))
    return events
