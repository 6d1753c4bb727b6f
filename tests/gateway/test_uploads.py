"""The specification of gateway.jobs.request_body and options: what is taken from a request, what is refused."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from gateway.config.settings import Settings
from gateway.jobs.options import UpscaleOptions, UpscaleRequest, make_request, parse_options, refuse_early
from gateway.problems import UnknownFormat
from preprocessing.codec import UploadLimits, probe
from swinir.zoo import VARIANTS
from tests import builders
from tests.fakes import FakeBackend
from tests.gateway.conftest import MakeApp
from tests.gateway.requests import PHOTO, api_form, ask_api, problem_of

PIXELS = builders.draw_photo(24, 32)


BOUNDARY = "x" * 20


def multipart(data: bytes) -> bytes:
    """Return a form with the image, built by hand: the test client writes large ones to disk."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


class Watched(BytesIO):
    """A body that remembers how much of it was read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


def ask_watched(client: FlaskClient, key: str, data: bytes, **environ: Any) -> tuple[tuple[int, str], int]:
    """Post a raw body and return (problem, bytes read of it)."""
    body = Watched(data)
    response = client.post(
        "/api/v1/upscale",
        input_stream=body,
        headers={"X-API-Key": key},
        environ_overrides={"wsgi.input_terminated": True, **environ},
    )
    return problem_of(response), body.taken


BAD_IMAGES = {
    "empty": (b"", 400, "empty-upload"),
    "text named .png": (b"I am a picture, believe me.", 415, "unknown-format"),
    "a GIF": (b"GIF89a" + bytes(100), 415, "unknown-format"),
    "30000 x 30000 header": (builders.png_header_only(30_000, 30_000), 413, "too-many-pixels"),
    "a long side": (builders.png_header_only(1, 9_000), 413, "side-too-long"),
    "a truncated JPEG": (builders.truncated(builders.encode_jpeg(PIXELS)), 422, "unreadable-image"),
    "a truncated PNG": (builders.truncated(PHOTO), 422, "unreadable-image"),
}


@pytest.mark.parametrize("what", BAD_IMAGES)
@pytest.mark.parametrize("way", ["raw", "multipart"])
def test_a_bad_image_is_refused_by_name_and_the_backend_hears_nothing(
    client: FlaskClient, key: str, upscaler: FakeBackend, what: str, way: str
) -> None:
    data, status, slug = BAD_IMAGES[what]

    if way == "raw":
        response = ask_api(client, key, data)
    else:
        response = client.post("/api/v1/upscale", headers={"X-API-Key": key}, **api_form(data))

    assert problem_of(response) == (status, slug)
    assert upscaler.asked == []


GOOD_IMAGES = {
    "1x1": builders.encode_png(PIXELS[:1, :1]),
    "1xN": builders.encode_png(PIXELS[:, :1]),
    "an animated WebP": builders.animated_webp([PIXELS, PIXELS[::-1]]),
    "CMYK": builders.cmyk_jpeg(PIXELS),
    "a palette PNG with transparency": builders.palette_png_with_transparency(PIXELS),
    "16-bit grey": builders.grey16_png(np.arange(0, 64_000, 1_000, dtype=np.uint16).reshape(8, 8)),
    "a JPEG": builders.encode_jpeg(PIXELS),
    "a WebP": builders.encode_webp(PIXELS),
}


@pytest.mark.parametrize("what", GOOD_IMAGES)
def test_an_unusual_image_is_taken(client: FlaskClient, key: str, upscaler: FakeBackend, what: str) -> None:
    response = ask_api(client, key, GOOD_IMAGES[what])

    assert response.status_code == 200, response.get_data(as_text=True)
    assert len(upscaler.asked) == 1


def test_an_upload_over_the_limit_is_refused_before_the_body_is_read(make_app: MakeApp, key: str) -> None:
    client = make_app(max_upload_bytes=2_000).test_client()

    problem, taken = ask_watched(client, key, bytes(2_001), CONTENT_LENGTH="2001")

    assert problem == (413, "too-many-bytes")
    assert taken == 0


def test_the_refusal_names_both_numbers(make_app: MakeApp, key: str) -> None:
    response = ask_api(make_app(max_upload_bytes=2_000).test_client(), key, bytes(12_345))

    assert "12,345" in response.get_json()["detail"]
    assert "2,000" in response.get_json()["detail"]
    assert response.get_json()["max_bytes"] == 2_000


def test_a_body_of_unknown_length_is_read_up_to_the_limit_and_one_byte(make_app: MakeApp, key: str) -> None:
    client = make_app(max_upload_bytes=2_000).test_client()
    png = builders.insert_png_chunk(PHOTO, b"teSt", bytes(100_000))

    problem, taken = ask_watched(client, key, png, CONTENT_LENGTH="", HTTP_TRANSFER_ENCODING="chunked")

    assert problem == (413, "too-many-bytes")
    assert taken == 2_001


def test_a_body_without_any_length_is_empty(client: FlaskClient, key: str) -> None:
    problem, taken = ask_watched(client, key, PHOTO, CONTENT_LENGTH="", **{"wsgi.input_terminated": False})

    assert problem == (400, "empty-upload")
    assert taken == 0


def test_a_body_shorter_than_announced_is_incomplete(client: FlaskClient, key: str) -> None:
    problem, _ = ask_watched(client, key, PHOTO[:100], CONTENT_LENGTH=str(len(PHOTO)))

    assert problem == (400, "incomplete-body")


def test_without_a_key_nothing_of_the_body_is_read(client: FlaskClient) -> None:
    problem, taken = ask_watched(client, "", PHOTO, CONTENT_LENGTH=str(len(PHOTO)))

    assert problem == (401, "key-required")
    assert taken == 0


@pytest.mark.parametrize("head", [b"not an image ", builders.png_header_only(30_000, 30_000)])
def test_first_bytes_that_tell_enough_spare_the_rest(client: FlaskClient, key: str, head: bytes) -> None:
    data = head + bytes(1_000_000)

    problem, taken = ask_watched(client, key, data, CONTENT_LENGTH=str(len(data)))

    assert problem[0] in (413, 415)
    assert taken == 65_536


def test_first_bytes_in_a_form_spare_the_rest_too(client: FlaskClient, key: str) -> None:
    body = Watched(multipart(b"not an image" + bytes(1_000_000)))
    response = client.post(
        "/api/v1/upscale",
        input_stream=body,
        headers={"X-API-Key": key},
        content_type=f"multipart/form-data; boundary={BOUNDARY}",
        environ_overrides={"CONTENT_LENGTH": str(len(body.getvalue()))},
    )

    assert problem_of(response) == (415, "unknown-format")
    assert body.taken <= 3 * 65_536


def test_a_head_that_is_merely_cut_off_is_no_reason_to_refuse() -> None:
    refuse_early(builders.encode_jpeg(builders.draw_photo(64, 64))[:700], Settings())
    with pytest.raises(UnknownFormat):
        refuse_early(b"text", Settings())


def test_a_large_form_is_taken_whole_and_without_a_file_on_disk(
    client: FlaskClient, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("werkzeug.formparser.SpooledTemporaryFile", None)
    monkeypatch.setattr("werkzeug.formparser.TemporaryFile", None, raising=False)
    png = builders.insert_png_chunk(PHOTO, b"teSt", bytes(1_500_000))

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
    "many parts": ({f"f{n}": "x" for n in range(20)}, 400, "malformed-form"),
    "a long text": ({"variant": "x" * 200_000, "image": (BytesIO(PHOTO), "a")}, 400, "malformed-form"),
    "an unknown field": ({"image": (BytesIO(PHOTO), "a"), "scale": "4"}, 400, "bad-parameter"),
    "a field twice": ({"image": (BytesIO(PHOTO), "a"), "format": ["png", "png"]}, 400, "bad-parameter"),
}


@pytest.mark.parametrize("what", BAD_FORMS)
def test_a_bad_form_is_refused_by_name(make_app: MakeApp, key: str, upscaler: FakeBackend, what: str) -> None:
    fields, status, slug = BAD_FORMS[what]
    for value in fields.values():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, tuple):
                one[0].seek(0)

    response = (
        make_app()
        .test_client()
        .post("/api/v1/upscale", data=fields, content_type="multipart/form-data", headers={"X-API-Key": key})
    )

    assert problem_of(response) == (status, slug)
    assert upscaler.asked == []


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
def test_a_body_that_is_no_multipart_is_a_4xx(client: FlaskClient, key: str, body: bytes, content_type: str) -> None:
    response = client.post("/api/v1/upscale", data=body, content_type=content_type, headers={"X-API-Key": key})

    status, slug = problem_of(response)
    assert status == 400
    assert slug in ("malformed-form", "missing-image")


@pytest.mark.parametrize(
    ("query", "parameter", "allowed"),
    [
        ("?variant=nope", "variant", "compact_x4"),
        ("?format=gif", "format", "png, jpeg, webp"),
        ("?format=PNG", "format", "png, jpeg, webp"),
        ("?quality=0", "quality", "from 1 to 100"),
        ("?quality=101", "quality", "from 1 to 100"),
        ("?quality=9.5", "quality", "from 1 to 100"),
        ("?quality=%C2%B2", "quality", "from 1 to 100"),
        ("?fromat=png", "fromat", "variant, format, quality"),
    ],
)
def test_a_choice_that_does_not_exist_is_refused_with_what_there_is(
    client: FlaskClient, key: str, query: str, parameter: str, allowed: str
) -> None:
    response = ask_api(client, key, query=query)

    assert problem_of(response) == (400, "bad-parameter")
    assert response.get_json()["parameter"] == parameter
    assert allowed in response.get_json()["detail"]


def test_a_parameter_in_the_form_and_in_the_address_is_refused(client: FlaskClient, key: str) -> None:
    response = client.post("/api/v1/upscale?format=png", headers={"X-API-Key": key}, **api_form(format="png"))

    assert problem_of(response) == (400, "bad-parameter")


def test_an_empty_parameter_means_the_default(client: FlaskClient, key: str) -> None:
    response = ask_api(client, key, query="?variant=&format=&quality=")

    assert response.headers["X-Superres-Variant"] == "compact_x4"
    assert response.mimetype == "image/png"


def test_a_result_over_the_limit_is_refused_before_any_decode(make_app: MakeApp, key: str) -> None:
    client = make_app(max_output_pixels=32 * 24 * 16 - 1).test_client()

    response = ask_api(client, key, PHOTO)

    assert problem_of(response) == (413, "result-too-large")
    assert "128 x 96 = 12,288" in response.get_json()["detail"]


def test_a_result_that_takes_too_much_memory_as_webp_is_refused_and_made_as_png(make_app: MakeApp, key: str) -> None:
    client = make_app(max_job_memory_bytes=1_048_576).test_client()
    plain = builders.encode_png(builders.draw_photo(48, 64))  # 49,152 pixels of 16 bytes fit, those of 42 do not
    clear = builders.encode_png(np.dstack((builders.draw_photo(48, 64), builders.draw_alpha(48, 64))))

    refused = ask_api(client, key, clear, "?format=webp")

    assert problem_of(refused) == (413, "result-too-large")
    assert "256 x 192 = 49,152 pixels; 24,966 is the limit for WebP with transparency" in refused.get_json()["detail"]
    assert "Ask for PNG" in refused.get_json()["detail"]
    assert ask_api(client, key, plain, "?format=webp").status_code == 200
    assert ask_api(client, key, clear, "?format=png").status_code == 200


def test_a_refusal_for_memory_costs_no_megapixels(make_app: MakeApp, key: str) -> None:
    client = make_app(max_job_memory_bytes=1_048_576, client_megapixels="1 per hour").test_client()
    large = builders.encode_png(builders.draw_photo(200, 200))

    answers = [ask_api(client, key, large, "?format=webp") for _ in range(30)]

    assert {problem_of(answer) for answer in answers} == {(413, "result-too-large")}


def test_a_format_that_cannot_hold_the_result_is_refused(client: FlaskClient, key: str) -> None:
    response = ask_api(client, key, builders.encode_png(builders.draw_photo(1, 4_097)), "?format=webp")

    assert problem_of(response) == (422, "unsupported-output")


@pytest.mark.parametrize(
    ("sent", "stem"),
    [
        ("photo.png", "photo"),
        ("a.b.jpeg", "a.b"),
        ("C:\\me\\photo.png", "photo"),
        ("../../etc/passwd", "passwd"),
        ("a b\r\nc.png", "a_b_c"),
        ("", "image"),
        (".png", "png"),
        ("...", "image"),
        ("été 1.webp", "été_1"),
        ("x" * 300 + ".png", "x" * 80),
        ('"; rm -rf.png', "rm_-rf"),
    ],
)
def test_the_name_of_the_result_is_made_of_the_uploads_and_is_safe(sent: str, stem: str) -> None:
    order = make_request(PHOTO, sent, parse_options({}, Settings()), Settings())

    assert order.filename == f"{stem}_compact_x4.png"


def test_the_name_says_the_scale_once() -> None:
    upload = probe(PHOTO, UploadLimits(10**6, 10**6, 10**4))

    names = [
        UpscaleRequest(upload, UpscaleOptions(VARIANTS[name], "webp", 92), "a").filename
        for name in ("real_x2", "color_jpeg_10")
    ]

    assert names == ["a_real_x2.webp", "a_color_jpeg_10_x1.webp"]
