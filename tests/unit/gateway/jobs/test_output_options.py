"""Format, quality and lossless of a result: aliases, `same`, and what does not go together."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image as PilImage

from gateway.jobs.output_options import OutputOptions, parse_output_options
from gateway.jobs.result_cache import cache_key
from gateway.jobs.result_notes import describe_result
from gateway.problems import BadParameter
from preprocessing.codec import UploadLimits, decode, probe
from testing import images
from testing.backend import FakeBackend
from testing.jobs import make_runner, upscale_request
from testing.requests import PHOTO, post_image, read_problem

PIXELS = images.draw_photo(24, 32)
UPLOADS = {"png": PHOTO, "jpeg": images.encode_jpeg(PIXELS), "webp": images.encode_webp(PIXELS)}
LIMITS = UploadLimits(10**6, 10**6, 10**4)


def opened(data: bytes) -> PilImage.Image:
    return PilImage.open(BytesIO(data))


@pytest.mark.parametrize(
    ("requested", "format_", "name"),
    [
        ("jpg", "JPEG", "photo_compact_x4.jpg"),
        ("jpeg", "JPEG", "photo_compact_x4.jpeg"),
        ("", "PNG", "photo_compact_x4.png"),
    ],
)
def test_file_name_ends_as_the_format_was_named(requested: str, format_: str, name: str) -> None:
    result = make_runner(FakeBackend()).run(upscale_request(format=requested), "id")

    assert (opened(result.data).format, result.media_type, result.filename) == (
        format_,
        f"image/{format_.lower()}",
        name,
    )


@pytest.mark.parametrize("format_", UPLOADS)
def test_same_is_the_format_of_the_upload(client: FlaskClient, key: str, format_: str) -> None:
    response = post_image(client, key, UPLOADS[format_], query="?format=same")

    assert opened(response.data).format == format_.upper()
    assert response.mimetype == f"image/{format_}"
    assert f"_compact_x4.{format_}" in response.headers["Content-Disposition"]
    assert "written as" not in response.headers.get("X-Superres-Notes", "")


@pytest.mark.parametrize(
    ("uploaded", "format_", "written"),
    [("GIF", "png", "PNG"), ("BMP", "png", "PNG"), ("TIFF", "png", "PNG"), ("HEIC", "jpeg", "JPEG")],
)
def test_same_takes_the_nearest_format_and_says_so(uploaded: Any, format_: str, written: str) -> None:
    request = upscale_request(format="same")
    upload = replace(probe(PHOTO, LIMITS), format=uploaded)

    options = replace(request.options, output=request.options.output.resolve(upload))

    assert options.format == format_
    note = f"Results cannot be written as {uploaded}: this one is {written}."
    assert note in describe_result(decode(probe(PHOTO, LIMITS)), replace(request, options=options))


def test_same_is_the_same_result_as_the_format_by_name() -> None:
    for format_, data in UPLOADS.items():
        assert cache_key(upscale_request(data, format="same")) == cache_key(upscale_request(data, format=format_))
    assert cache_key(upscale_request(format="jpg")) == cache_key(upscale_request(format="jpeg"))


def test_lossless_webp_keeps_every_pixel_and_its_size_is_below_png() -> None:
    pixels = images.draw_photo(64, 64)
    data = images.encode_png(pixels)
    png, lossless, lossy = (
        make_runner(FakeBackend()).run(upscale_request(data, **parameters), "id").data
        for parameters in ({"format": "png"}, {"format": "webp", "lossless": "1"}, {"format": "webp"})
    )

    expected = pixels.repeat(4, axis=0).repeat(4, axis=1)
    assert (np.asarray(opened(lossless)) == expected).all()
    assert (np.asarray(opened(png)) == expected).all()
    assert (np.asarray(opened(lossy)) != expected).any()
    assert len(lossless) < len(png)


def test_lossless_webp_keeps_alpha_exactly() -> None:
    alpha = images.draw_alpha(24, 40)
    data = images.encode_png(np.dstack((images.draw_photo(24, 40), alpha)))
    png, webp = (
        make_runner(FakeBackend()).run(upscale_request(data, format=format_, lossless="1"), "id").data
        for format_ in ("png", "webp")
    )

    expected, found = np.asarray(opened(png)), np.asarray(opened(webp))
    assert (found[..., 3] == expected[..., 3]).all()
    assert (found[expected[..., 3] > 0] == expected[expected[..., 3] > 0]).all()


def test_lossless_makes_quality_void_and_is_another_result() -> None:
    def key_of(**parameters: str) -> str:
        return cache_key(upscale_request(PHOTO, **parameters))

    assert key_of(format="webp", lossless="1") != key_of(format="webp")
    assert key_of(format="webp", lossless="1", quality="80") == key_of(format="webp", lossless="1")
    assert key_of(lossless="1") == key_of(lossless="0") == key_of()


@pytest.mark.parametrize("query", ["?format=jpeg&lossless=1", "?format=jpg&lossless=1", "?format=same&lossless=1"])
def test_lossless_jpeg_is_rejected_before_any_work(client: FlaskClient, key: str, query: str) -> None:
    response = post_image(client, key, UPLOADS["jpeg"], query=query)

    assert read_problem(response) == (400, "bad-parameter")
    assert response.get_json()["parameter"] == "lossless"
    assert "Use the format png or webp" in response.get_json()["detail"]


@pytest.mark.parametrize("value", ["2", "yes", "true"])
def test_other_values_of_lossless_are_rejected(value: str) -> None:
    with pytest.raises(BadParameter, match=r"Invalid lossless .*Allowed: 0, 1"):
        parse_output_options({"lossless": value})


def test_defaults_are_those_of_the_documentation() -> None:
    assert parse_output_options({}) == OutputOptions("png", quality=92)
    assert parse_output_options({"format": "", "quality": "", "lossless": ""}) == OutputOptions("png", quality=92)
