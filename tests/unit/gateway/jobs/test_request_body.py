"""The request body: what is read of it, and what is rejected before it is read."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from gateway.config.settings import Settings
from gateway.jobs.options import reject_early
from gateway.problems import UnknownFormat
from testing import images
from testing.backend import FakeBackend
from testing.fixtures import MakeApp
from testing.requests import PHOTO, api_form, post_image, read_problem

PIXELS = images.draw_photo(24, 32)


BOUNDARY = "x" * 20


def multipart(data: bytes) -> bytes:
    """Return a form with the image as bytes; Flask's test client would write a large one to disk."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


class Watched(BytesIO):
    """A body that counts the bytes that were read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.bytes_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.bytes_read += len(data)
        return data


def send_counted(client: FlaskClient, key: str, data: bytes, **environ: Any) -> tuple[tuple[int, str], int]:
    """Post a raw body and return (problem, bytes read of it)."""
    body = Watched(data)
    response = client.post(
        "/api/v1/upscale",
        input_stream=body,
        headers={"X-API-Key": key},
        environ_overrides={"wsgi.input_terminated": True, **environ},
    )
    return read_problem(response), body.bytes_read


BAD_IMAGES = {
    "empty": (b"", 400, "empty-upload"),
    "text named .png": (b"I am a picture, believe me.", 415, "unknown-format"),
    "a PDF": (b"%PDF-1.7" + bytes(100), 415, "unknown-format"),
    "30000 x 30000 header": (images.png_header_only(30_000, 30_000), 413, "too-many-pixels"),
    "a long side": (images.png_header_only(1, 9_000), 413, "side-too-long"),
    "a truncated JPEG": (images.truncated(images.encode_jpeg(PIXELS)), 422, "unreadable-image"),
    "a truncated PNG": (images.truncated(PHOTO), 422, "unreadable-image"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
@pytest.mark.parametrize("way", ["raw", "multipart"])
def test_bad_image_is_rejected_without_a_backend_call(
    client: FlaskClient, key: str, upscaler: FakeBackend, case: str, way: str
) -> None:
    data, status, slug = BAD_IMAGES[case]

    if way == "raw":
        response = post_image(client, key, data)
    else:
        response = client.post("/api/v1/upscale", headers={"X-API-Key": key}, **api_form(data))

    assert read_problem(response) == (status, slug)
    assert upscaler.calls == []


GOOD_IMAGES = {
    "1x1": images.encode_png(PIXELS[:1, :1]),
    "1xN": images.encode_png(PIXELS[:, :1]),
    "an animated WebP": images.animated_webp([PIXELS, PIXELS[::-1]]),
    "CMYK": images.cmyk_jpeg(PIXELS),
    "a palette PNG with transparency": images.palette_png_with_transparency(PIXELS),
    "16-bit grey": images.grey16_png(np.arange(0, 64_000, 1_000, dtype=np.uint16).reshape(8, 8)),
    "a JPEG": images.encode_jpeg(PIXELS),
    "a WebP": images.encode_webp(PIXELS),
}


@pytest.mark.parametrize("case", GOOD_IMAGES)
def test_unusual_image_is_accepted(client: FlaskClient, key: str, upscaler: FakeBackend, case: str) -> None:
    response = post_image(client, key, GOOD_IMAGES[case], "?variant=compact_x4")

    assert response.status_code == 200, response.get_data(as_text=True)
    assert len(upscaler.calls) == (2 if "transparency" in case else 1)  # alpha goes through the network too


def test_upload_over_limit_returns_413_unread(make_app: MakeApp, key: str) -> None:
    client = make_app(max_upload_bytes=2_000).test_client()

    problem, bytes_read = send_counted(client, key, bytes(2_001), CONTENT_LENGTH="2001")

    assert problem == (413, "too-many-bytes")
    assert bytes_read == 0


def test_error_names_size_and_limit(make_app: MakeApp, key: str) -> None:
    response = post_image(make_app(max_upload_bytes=2_000).test_client(), key, bytes(12_345))

    assert "12,345" in response.get_json()["detail"]
    assert "2,000" in response.get_json()["detail"]
    assert response.get_json()["max_bytes"] == 2_000


def test_chunked_body_is_read_to_one_byte_past_the_limit(make_app: MakeApp, key: str) -> None:
    client = make_app(max_upload_bytes=2_000).test_client()
    png = images.insert_png_chunk(PHOTO, b"teSt", bytes(100_000))

    problem, bytes_read = send_counted(client, key, png, CONTENT_LENGTH="", HTTP_TRANSFER_ENCODING="chunked")

    assert problem == (413, "too-many-bytes")
    assert bytes_read == 2_001


def test_body_without_length_is_empty(client: FlaskClient, key: str) -> None:
    problem, bytes_read = send_counted(client, key, PHOTO, CONTENT_LENGTH="", **{"wsgi.input_terminated": False})

    assert problem == (400, "empty-upload")
    assert bytes_read == 0


def test_body_shorter_than_its_length_is_incomplete(client: FlaskClient, key: str) -> None:
    problem, _ = send_counted(client, key, PHOTO[:100], CONTENT_LENGTH=str(len(PHOTO)))

    assert problem == (400, "incomplete-body")


def test_body_without_api_key_is_not_read(client: FlaskClient) -> None:
    problem, bytes_read = send_counted(client, "", PHOTO, CONTENT_LENGTH=str(len(PHOTO)))

    assert problem == (401, "key-required")
    assert bytes_read == 0


@pytest.mark.parametrize("head", [b"not an image ", images.png_header_only(30_000, 30_000)])
def test_body_is_rejected_by_its_first_bytes(client: FlaskClient, key: str, head: bytes) -> None:
    data = head + bytes(1_000_000)

    problem, bytes_read = send_counted(client, key, data, CONTENT_LENGTH=str(len(data)))

    assert problem[0] in (413, 415)
    assert bytes_read == 65_536


@pytest.mark.parametrize("query", ["variant=compact_x4", "variant=auto", "variant=compact_x4&width=4000"])
def test_upload_that_costs_its_variant_too_much_is_rejected_by_its_first_bytes(
    client: FlaskClient, key: str, query: str
) -> None:
    data = images.png_header_only(3_000, 4_000) + bytes(1_000_000)
    rejected = send_counted(client, key, data, CONTENT_LENGTH=str(len(data)), QUERY_STRING=query)
    at_1x = "variant=compact_color_denoise_25"
    problem, bytes_read = send_counted(client, key, data, CONTENT_LENGTH=str(len(data)), QUERY_STRING=at_1x)

    assert rejected == ((413, "result-too-large"), 65_536)
    assert (problem, bytes_read) == ((422, "unreadable-image"), len(data))


def test_form_is_rejected_by_its_first_bytes(client: FlaskClient, key: str) -> None:
    body = Watched(multipart(b"not an image" + bytes(1_000_000)))
    response = client.post(
        "/api/v1/upscale",
        input_stream=body,
        headers={"X-API-Key": key},
        content_type=f"multipart/form-data; boundary={BOUNDARY}",
        environ_overrides={"CONTENT_LENGTH": str(len(body.getvalue()))},
    )

    assert read_problem(response) == (415, "unknown-format")
    assert body.bytes_read <= 3 * 65_536


def test_truncated_header_is_not_rejected_early() -> None:
    reject_early(images.encode_jpeg(images.draw_photo(64, 64))[:700], None, Settings())
    with pytest.raises(UnknownFormat):
        reject_early(b"text", None, Settings())


def test_large_form_stays_in_memory(client: FlaskClient, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("werkzeug.formparser.SpooledTemporaryFile", None)
    monkeypatch.setattr("werkzeug.formparser.TemporaryFile", None, raising=False)
    png = images.insert_png_chunk(PHOTO, b"teSt", bytes(1_500_000))

    response = client.post(
        "/api/v1/upscale",
        data=multipart(png),
        headers={"X-API-Key": key},
        content_type=f"multipart/form-data; boundary={BOUNDARY}",
    )

    assert response.status_code == 200


BAD_FORMS: dict[str, tuple[dict[str, Any], int, str]] = {
    "no fields": ({}, 400, "missing-image"),
    "no image": ({"variant": "compact_x4"}, 400, "missing-image"),
    "an empty choice, as browsers send it": ({"image": (BytesIO(b""), "")}, 400, "missing-image"),
    "text for an image": ({"image": "photo.png"}, 400, "missing-image"),
    "two images": ({"image": [(BytesIO(PHOTO), "a"), (BytesIO(PHOTO), "b")]}, 400, "missing-image"),
    "another file": ({"image": (BytesIO(PHOTO), "a"), "mask": (BytesIO(PHOTO), "b")}, 400, "malformed-form"),
    "many parts": ({f"f{n}": "x" for n in range(30)}, 400, "malformed-form"),
    "a long text": ({"variant": "x" * 200_000, "image": (BytesIO(PHOTO), "a")}, 400, "malformed-form"),
    "an unknown field": ({"image": (BytesIO(PHOTO), "a"), "zoom": "4"}, 400, "bad-parameter"),
    "a field twice": ({"image": (BytesIO(PHOTO), "a"), "format": ["png", "png"]}, 400, "bad-parameter"),
}


@pytest.mark.parametrize("case", BAD_FORMS)
def test_bad_form_is_rejected_by_name(make_app: MakeApp, key: str, upscaler: FakeBackend, case: str) -> None:
    fields, status, slug = BAD_FORMS[case]
    for value in fields.values():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, tuple):
                one[0].seek(0)

    response = (
        make_app()
        .test_client()
        .post("/api/v1/upscale", data=fields, content_type="multipart/form-data", headers={"X-API-Key": key})
    )

    assert read_problem(response) == (status, slug)
    assert upscaler.calls == []


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "multipart/form-data"),
        (b"--x\r\nnonsense", "multipart/form-data; boundary=x"),
        (b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\nbroken off", "multipart/form-data; boundary=x"),
        (b"x" * 200_000, "multipart/form-data; boundary=x"),
        (b"--\xc3\xa4", "multipart/form-data; boundary=\xc3\xa4"),
    ],
)
def test_malformed_multipart_returns_400(client: FlaskClient, key: str, body: bytes, content_type: str) -> None:
    response = client.post("/api/v1/upscale", data=body, content_type=content_type, headers={"X-API-Key": key})

    status, slug = read_problem(response)
    assert status == 400
    assert slug in ("malformed-form", "missing-image")
