"""Options of an upscale: invalid ones and results that are too large are rejected before any work."""

from __future__ import annotations

import numpy as np
import pytest
from flask.testing import FlaskClient

from gateway.config.settings import Settings
from gateway.jobs.options import UpscaleOptions, UpscaleRequest, make_request, parse_options
from preprocessing.codec import UploadLimits, probe
from swinir.zoo import VARIANTS
from testing import images
from testing.fixtures import MakeApp
from testing.requests import PHOTO, api_form, ask_api, problem_of


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
    plain = images.encode_png(images.draw_photo(48, 64))  # 49,152 pixels of 16 bytes fit, those of 42 do not
    clear = images.encode_png(np.dstack((images.draw_photo(48, 64), images.draw_alpha(48, 64))))

    refused = ask_api(client, key, clear, "?format=webp")

    assert problem_of(refused) == (413, "result-too-large")
    assert "256 x 192 = 49,152 pixels; the maximum for WebP with transparency is 24,966" in refused.get_json()["detail"]
    assert "Choose PNG" in refused.get_json()["detail"]
    assert ask_api(client, key, plain, "?format=webp").status_code == 200
    assert ask_api(client, key, clear, "?format=png").status_code == 200


def test_a_refusal_for_memory_costs_no_megapixels(make_app: MakeApp, key: str) -> None:
    client = make_app(max_job_memory_bytes=1_048_576, client_megapixels="1 per hour").test_client()
    large = images.encode_png(images.draw_photo(200, 200))

    answers = [ask_api(client, key, large, "?format=webp") for _ in range(30)]

    assert {problem_of(answer) for answer in answers} == {(413, "result-too-large")}


def test_a_format_that_cannot_hold_the_result_is_refused(client: FlaskClient, key: str) -> None:
    response = ask_api(client, key, images.encode_png(images.draw_photo(1, 4_097)), "?format=webp")

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
