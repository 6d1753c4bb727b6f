"""Options of an upscale: invalid ones and results that are too large are rejected before any work."""

from __future__ import annotations

import numpy as np
import pytest
from flask.testing import FlaskClient

from gateway.config.settings import Settings
from gateway.jobs.options import UpscaleOptions, UpscaleRequest, make_request, parse_options
from gateway.jobs.output_options import OutputOptions
from preprocessing.codec import UploadLimits, probe
from swinir.zoo import VARIANTS
from testing import images
from testing.fixtures import MakeApp
from testing.jobs import upscale_request
from testing.requests import PHOTO, api_form, post_image, read_problem


@pytest.mark.parametrize(
    ("query", "parameter", "allowed"),
    [
        ("?variant=nope", "variant", "compact_x4"),
        ("?format=gif", "format", "png, jpeg, webp, avif, jpg, same"),
        ("?format=PNG", "format", "png, jpeg, webp, avif, jpg, same"),
        ("?quality=0", "quality", "from 1 to 100"),
        ("?quality=101", "quality", "from 1 to 100"),
        ("?quality=9.5", "quality", "from 1 to 100"),
        ("?quality=%C2%B2", "quality", "from 1 to 100"),
        ("?fromat=png", "fromat", "variant, format, quality, lossless"),
    ],
)
def test_unknown_option_is_rejected_with_the_valid_ones(
    client: FlaskClient, key: str, query: str, parameter: str, allowed: str
) -> None:
    response = post_image(client, key, query=query)

    assert read_problem(response) == (400, "bad-parameter")
    assert response.get_json()["parameter"] == parameter
    assert allowed in response.get_json()["detail"]


def test_parameter_in_form_and_query_is_rejected(client: FlaskClient, key: str) -> None:
    response = client.post("/api/v1/upscale?format=png", headers={"X-API-Key": key}, **api_form(format="png"))

    assert read_problem(response) == (400, "bad-parameter")


def test_empty_parameter_means_the_default(client: FlaskClient, key: str) -> None:
    response = post_image(client, key, query="?variant=&format=&quality=")

    assert response.headers["X-Superres-Variant"] == "compact_x4"
    assert response.mimetype == "image/png"


def test_too_large_result_is_rejected_before_decoding(make_app: MakeApp, key: str) -> None:
    client = make_app(max_output_pixels=32 * 24 * 16 - 1).test_client()

    response = post_image(client, key, PHOTO)

    assert read_problem(response) == (413, "result-too-large")
    assert "128 x 96 = 12,288" in response.get_json()["detail"]


def test_result_too_large_for_webp_works_as_png(make_app: MakeApp, key: str) -> None:
    client = make_app(max_job_memory_bytes=1_048_576).test_client()
    plain = images.encode_png(images.draw_photo(48, 64))  # 49,152 pixels of 16 bytes fit, those of 43 do not
    clear = images.encode_png(np.dstack((images.draw_photo(48, 64), images.draw_alpha(48, 64))))

    refused = post_image(client, key, clear, "?format=webp")

    assert read_problem(refused) == (413, "result-too-large")
    assert "256 x 192 = 49,152 pixels; the maximum for WebP with transparency is 24,966" in refused.get_json()["detail"]
    assert "Choose PNG" in refused.get_json()["detail"]
    assert post_image(client, key, plain, "?format=webp").status_code == 200
    assert post_image(client, key, clear, "?format=png").status_code == 200


def test_rejected_result_costs_no_megapixels(make_app: MakeApp, key: str) -> None:
    client = make_app(max_job_memory_bytes=1_048_576, client_megapixels="1 per hour").test_client()
    large = images.encode_png(images.draw_photo(200, 200))

    responses = [post_image(client, key, large, "?format=webp") for _ in range(30)]

    assert {read_problem(response) for response in responses} == {(413, "result-too-large")}


def test_format_with_too_small_sides_is_rejected(client: FlaskClient, key: str) -> None:
    response = post_image(client, key, images.encode_png(images.draw_photo(1, 4_097)), "?format=webp")

    assert read_problem(response) == (422, "unsupported-output")


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
def test_result_has_a_safe_name_from_the_upload(sent: str, stem: str) -> None:
    upscale_request = make_request(PHOTO, sent, parse_options({}, Settings()), Settings())

    assert upscale_request.filename == f"{stem}_compact_x4.png"


def test_name_says_the_scale_once() -> None:
    upload = probe(PHOTO, UploadLimits(10**6, 10**6, 10**4))

    names = [
        UpscaleRequest(upload, UpscaleOptions(VARIANTS[name], OutputOptions("webp")), "a").filename
        for name in ("real_x2", "color_jpeg_10")
    ]

    assert names == ["a_real_x2.webp", "a_color_jpeg_10_x1.webp"]


@pytest.mark.parametrize(("height", "width", "is_small"), [(128, 128, True), (64, 256, True), (129, 128, False)])
def test_small_images_share_a_slot(height: int, width: int, is_small: bool) -> None:
    assert upscale_request(images.encode_png(images.draw_photo(height, width))).is_small == is_small
