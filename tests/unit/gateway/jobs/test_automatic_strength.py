"""Without a strength, it follows from the damage of the image: full for strong damage, 0 for none."""

from __future__ import annotations

import numpy as np
import pytest
from flask.testing import FlaskClient

from gateway.jobs.options import make_request, parse_options
from gateway.jobs.result_cache import cache_key
from gateway.jobs.strength import find_strength
from preprocessing.image import Image, Pixels
from testing.backend import FakeBackend
from testing.content_images import add_noise, draw_clean_photo, pass_through_jpeg
from testing.fixtures import MakeApp
from testing.images import encode_jpeg, encode_png
from testing.jobs import SETTINGS, make_runner
from testing.requests import post_image, read_events, read_image

PHOTO = draw_clean_photo()
SMOOTH = np.linspace(40, 200, 128)[:, np.newaxis, np.newaxis].repeat(128, axis=1).repeat(3, axis=2).astype(np.uint8)
DENOISER, JPEG_VARIANT = "compact_color_denoise_25", "compact_color_jpeg_20"


def add_grey_noise(sigma: int) -> Pixels:
    return add_noise(SMOOTH[..., :1], sigma).repeat(3, axis=2)


def strength_of(task: str, pixels: Pixels, file_quality: int | None = None) -> int:
    return find_strength(task, Image(pixels), file_quality).percent


@pytest.mark.parametrize(
    ("quality", "percent"), [(100, 0), (95, 0), (94, 14), (92, 43), (90, 71), (88, 100), (80, 100), (10, 100)]
)
def test_strength_falls_with_the_quality_of_the_file(quality: int, percent: int) -> None:
    assert strength_of("color_jpeg", PHOTO, quality) == percent


def test_damage_from_before_the_last_save_counts() -> None:
    assert strength_of("gray_jpeg", pass_through_jpeg(PHOTO, 60), 98) == 100
    assert strength_of("gray_jpeg", pass_through_jpeg(PHOTO, 60), None) == 100


def test_jpeg_damage_that_shows_no_quality_gets_full_strength() -> None:
    """WebP and scaled JPEGs are such images, and gain by the variant."""
    assert strength_of("color_jpeg", PHOTO, None) == 100


def test_strength_rises_with_the_noise() -> None:
    of_grey = [strength_of("gray_denoise", add_grey_noise(sigma)) for sigma in (0, 1, 3, 12)]
    of_colour = [strength_of("color_denoise", add_noise(SMOOTH, sigma)) for sigma in (0, 2, 3, 12)]

    assert of_grey[:2] == [0, 0]
    assert 20 < of_grey[2] < 80
    assert of_grey[3] == 100
    assert of_colour[0] == 0
    assert 60 < of_colour[1] <= 100
    assert of_colour[2:] == [100, 100]


def test_noise_that_cannot_be_measured_gets_full_strength() -> None:
    assert strength_of("color_denoise", PHOTO[:16, :16]) == 100


def test_reasons_name_what_was_measured() -> None:
    noisy = add_grey_noise(3)

    reasons = [
        find_strength("color_jpeg", Image(PHOTO), 93).reason,
        find_strength("color_denoise", Image(SMOOTH), None).reason,
        find_strength("gray_denoise", Image(noisy), None).reason,
    ]

    assert reasons == [
        "the JPEG damage is weak (quality 93)",
        "no noise was found",
        "the noise is weak (about 2 levels)",
    ]


@pytest.mark.parametrize("strength", [None, "auto"])
def test_header_and_note_name_the_strength_that_was_chosen(client: FlaskClient, key: str, strength: str | None) -> None:
    query = f"?variant={JPEG_VARIANT}" + (f"&strength={strength}" if strength else "")

    good, bad = (post_image(client, key, encode_jpeg(PHOTO, quality=quality), query=query) for quality in (93, 60))

    assert (good.headers["X-Superres-Strength"], bad.headers["X-Superres-Strength"]) == ("0.29", "1")
    assert (
        "Strength 0.29, because the JPEG damage is weak (quality 93): the result is a mix of 29 % restored and "
        "71 % original." in good.headers["X-Superres-Notes"]
    )
    assert "Strength" not in bad.headers.get("X-Superres-Notes", "")
    assert "strength" not in good.headers["Content-Disposition"]


def test_undamaged_image_is_returned_as_it_is(client: FlaskClient, key: str) -> None:
    response = post_image(client, key, encode_png(SMOOTH), query=f"?variant={DENOISER}")

    assert np.array_equal(read_image(response.data), SMOOTH)
    assert "Strength 0, because no noise was found: the result is the original." in response.headers["X-Superres-Notes"]


def test_event_has_the_strength_as_a_number(client: FlaskClient, key: str) -> None:
    headers = {"Accept": "text/event-stream"}

    streamed = post_image(
        client, key, encode_jpeg(PHOTO, quality=93), query=f"?variant={JPEG_VARIANT}", headers=headers
    )

    assert read_events(streamed.data)[-1][1]["strength"] == 0.29


def test_cached_result_has_the_chosen_strength(make_app: MakeApp, key: str) -> None:
    client = make_app(cache_max_bytes=10**7).test_client()
    data = encode_jpeg(PHOTO, quality=93)

    first, second = (post_image(client, key, data, query=f"?variant={JPEG_VARIANT}") for _ in range(2))

    assert [each.headers["X-Superres-Cache"] for each in (first, second)] == ["miss", "hit"]
    assert [each.headers["X-Superres-Strength"] for each in (first, second)] == ["0.29", "0.29"]
    assert second.data == first.data


def test_choice_does_not_change_the_key_of_the_cache_or_the_name() -> None:
    options = parse_options({"variant": "color_jpeg_10"}, SETTINGS)
    request = make_request(encode_jpeg(PHOTO, quality=93), "photo.jpg", options, SETTINGS)
    job = make_runner(FakeBackend()).submit(request, "id")

    result = job.run()

    assert job.request.options.strength_percent == 29
    assert cache_key(job.request) == cache_key(request)
    assert result.filename == request.filename == "photo_color_jpeg_10_x1.png"
