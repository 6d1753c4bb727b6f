"""Limits by what an image costs: pixels that a variant reads and makes, and memory."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image as PilImage

from gateway import problems
from gateway.config.fields import SettingsError
from gateway.config.settings import Settings
from gateway.jobs.limits import max_upload_pixels, probe_upload, upload_limits
from gateway.jobs.options import UpscaleRequest, make_request, parse_options, reject_early
from preprocessing.codec import DecoderLimits
from preprocessing.working_memory import DECODER_BYTES
from testing import images
from testing.fixtures import MakeApp
from testing.requests import post_image, read_problem

DEFAULTS = Settings()
# A phone's 12 megapixels.
CAMERA = (4_032, 3_024)


def header_of_png(width: int, height: int) -> bytes:
    """Return a PNG of one flat colour, whose size costs no memory here."""
    rows = zlib.compressobj(1)
    body = b"".join(rows.compress(bytes(1 + width)) for _ in range(height)) + rows.flush()
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", body), (b"IEND", b""))
    return images.PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


PHOTO_12 = header_of_png(*CAMERA)


def request(data: bytes, settings: Settings = DEFAULTS, **parameters: str) -> UpscaleRequest:
    return make_request(data, "photo.png", parse_options(parameters, settings), settings)


@pytest.mark.parametrize(("scale", "pixels"), [(1, 12_500_000), (2, 12_500_000), (3, 7_456_540), (4, 4_194_304)])
def test_default_limits_of_each_scale(scale: int, pixels: int) -> None:
    assert max_upload_pixels(scale, Settings()) == pixels


@pytest.mark.parametrize(
    "parameters",
    [
        {"variant": "compact_color_denoise_25"},
        {"variant": "compact_gray_jpeg_20", "format": "jpeg"},
        {"variant": "compact_x2"},
        {"variant": "compact_x2", "scale": "1.5"},
        {"variant": "auto", "scale": "2"},
    ],
)
def test_12_megapixels_are_accepted_where_the_result_is_within_its_limit(parameters: dict[str, str]) -> None:
    accepted = request(PHOTO_12, DEFAULTS, **parameters)

    factor = float(parameters.get("scale", accepted.options.variant.scale))
    assert (accepted.width, accepted.height) == (CAMERA[0] * factor, CAMERA[1] * factor)
    assert accepted.working_bytes <= Settings().max_job_memory_bytes


@pytest.mark.parametrize(
    ("parameters", "advice"),
    [
        ({"variant": "auto"}, "or scale=2."),
        (
            {"variant": "compact_x4"},
            "or choose compact_x2, compact_color_denoise_25 or compact_color_jpeg_20, which make fewer pixels.",
        ),
        (
            {"variant": "compact_photo_x4", "scale": "2"},
            "or choose compact_x2, compact_color_denoise_25 or compact_color_jpeg_20, which make fewer pixels.",
        ),
    ],
)
def test_too_many_pixels_for_a_variant_are_refused_with_both_numbers_and_what_is_accepted(
    parameters: dict[str, str], advice: str
) -> None:
    with pytest.raises(problems.ResultTooLarge) as caught:
        request(PHOTO_12, DEFAULTS, **parameters)

    assert caught.value.detail == (
        f"Of this image of 4032 x 3024, {parameters['variant']} would make 16128 x 12096 = 195,084,288 pixels; the "
        "maximum is 67,108,864 (max_output_pixels). At 4x an upload may have 4,194,304 pixels, such as 2364 x 1773: "
        f"send a smaller image, or a part of it, {advice}"
    )


def test_size_named_in_the_refusal_is_accepted() -> None:
    request(header_of_png(2_364, 1_773), variant="compact_x4")


def test_too_many_pixels_for_all_variants_are_refused_with_the_limit_of_each_scale() -> None:
    data = header_of_png(4_096, 3_072)

    for refuse in (
        lambda: request(data, variant="compact_color_denoise_25"),
        lambda: reject_early(data, None, Settings()),
    ):
        with pytest.raises(problems.TooManyPixels) as caught:
            refuse()
        assert caught.value.detail == (
            "The image has 4096 x 3072 = 12,582,912 pixels; 12,500,000 is the limit. Send a smaller image or a part of "
            "it. An upload may have 12,500,000 at 1x, 12,500,000 at 2x and 4,194,304 at 4x: at most max_pixels, and a "
            "result of at most 67,108,864 (max_output_pixels)."
        )


def test_upload_never_needs_more_memory_to_decode_than_jobs_may_have() -> None:
    settings = Settings(max_pixels=80_000_000, max_job_memory_bytes=480_000_000)

    assert upload_limits(settings).max_pixels == 20_000_000 == settings.max_job_memory_bytes // DECODER_BYTES


def test_service_without_a_smaller_variant_advises_a_smaller_image() -> None:
    with pytest.raises(problems.ResultTooLarge, match=r": send a smaller image, or a part of it\.$"):
        request(PHOTO_12, Settings(variants="compact_x4"), variant="compact_x4")


def test_variants_name_their_limits(client: FlaskClient) -> None:
    body = client.get("/api/v1/variants").get_json()

    limits = {row["name"]: row["max_pixels"] for row in body["variants"]}
    assert (limits["compact_x4"], limits["compact_x2"]) == (4_194_304, 12_500_000)
    assert limits["compact_color_denoise_25"] == body["limits"]["max_pixels"] == 12_500_000


def test_image_of_many_pixels_at_scale_1_is_served(make_app: MakeApp, key: str) -> None:
    client = make_app(max_output_pixels=20_000, max_pixels=20_000).test_client()
    data = images.encode_png(np.zeros((100, 200, 3), np.uint8))

    assert post_image(client, key, data, "?variant=compact_color_denoise_25").status_code == 200
    assert read_problem(post_image(client, key, data, "?variant=compact_x2")) == (413, "result-too-large")


def test_format_that_is_switched_off_is_refused_and_not_offered(make_app: MakeApp) -> None:
    gif = images.save(PilImage.fromarray(images.draw_photo(8, 8)), "GIF")
    assert probe_upload(gif, Settings()).format == "GIF"

    with pytest.raises(problems.UnknownFormat) as caught:
        probe_upload(gif, Settings(extra_formats="avif, tiff"))
    page = make_app(extra_formats="avif, tiff").test_client().get("/").get_data(as_text=True)

    assert caught.value.detail == (
        "The upload is a GIF, which this service does not read. Send a JPEG, PNG, WebP, AVIF or TIFF."
    )
    assert "image/tiff" in page
    assert "image/gif" not in page


def test_decoder_gets_the_limits_of_the_settings() -> None:
    settings = Settings(max_decoder_memory_bytes=200_000_000, max_decoder_s=3)
    bmp = images.save(PilImage.fromarray(images.draw_photo(8, 8)), "BMP")

    assert probe_upload(bmp, settings).decoder_limits == DecoderLimits(200_000_000, 3)
    assert probe_upload(bmp, Settings()).decoder_limits == DecoderLimits()


@pytest.mark.parametrize("value", ["jpeg", "gif;tiff", "svg"])
def test_unknown_extra_format_is_an_error_of_the_settings(value: str) -> None:
    with pytest.raises(SettingsError, match="each part must be one of: avif, heic, tiff, bmp, gif"):
        Settings(extra_formats=value)
    assert Settings(extra_formats="").extra_formats == ""
