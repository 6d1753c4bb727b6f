"""The strength of a restoration: which values are valid, and that results are mixed with the upload."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image as PilImage

from gateway import problems
from gateway.backend.interface import Band
from gateway.config.settings import Settings
from gateway.jobs.job import Progress, Result
from gateway.jobs.options import parse_options
from gateway.jobs.result_cache import cache_key
from preprocessing.codec import Pixels
from preprocessing.depth import max_level
from preprocessing.mixing import mix
from swinir.checks import FIELDS
from testing import images
from testing.backend import FakeBackend
from testing.fixtures import MakeApp
from testing.jobs import SETTINGS, make_runner, upscale_request
from testing.requests import PHOTO, post_image, read_events, read_image, read_problem

RESTORER, BUNDLED = "color_jpeg_10", "compact_color_jpeg_20"
PIXELS = images.draw_photo(24, 32)
NEGATIVE = np.subtract(255, PIXELS, dtype=np.uint8)


class Inverting(FakeBackend):
    """Returns the negative of an image as its restoration, in two bands."""

    def upscale_bands(self, pixels: Pixels, *others: Any, **options: Any) -> Iterator[Band]:
        checks = np.zeros((1, len(FIELDS)), np.float32)
        checks[0, FIELDS.index("back_error")] = 100.0
        for band in super().upscale_bands(pixels, *others, **options):
            yield replace(band, pixels=np.subtract(max_level(band.pixels), band.pixels), checks=checks)


def restore(data: bytes = PHOTO, **parameters: str) -> Result:
    return make_runner(Inverting()).run(upscale_request(data, **{"variant": RESTORER, **parameters}), "id")


@pytest.mark.parametrize(
    ("text", "percent"),
    [
        ("0", 0),
        ("1", 100),
        ("0.5", 50),
        ("0.50", 50),
        (".5", 50),
        ("1.", 100),
        ("1.000", 100),
        ("+0.5", 50),
        ("-0.0", 0),
        ("5e-1", 50),
        ("5E-1", 50),
        ("0.07", 7),
        ("0.29", 29),
        ("0.333333333333", 33),
        ("0.996", 100),
        ("0.004", 0),
        ("5e-324", 0),
    ],
)
def test_strength_is_rounded_to_hundredths(text: str, percent: int) -> None:
    assert parse_options({"variant": RESTORER, "strength": text}, SETTINGS).strength_percent == percent


@pytest.mark.parametrize(
    "text",
    [
        *(
            " ",
            "AUTO",
            "0,5",
            "50",
            "50%",
            "-0.01",
            "1.0001",
            "nan",
            "NaN",
            "inf",
            "-inf",
            "1e999",
            "Infinity",
            "0x1",
            "1_0",
        ),
        *("half", "\N{ARABIC-INDIC DIGIT ZERO}.5", "\N{SUPERSCRIPT ONE}", "0.5 ", " 0.5", "0.5\n", ".", "e1", "0.5.0"),
        *("True", "0" * 41, "\0"),
    ],
)
def test_invalid_strength_is_rejected_with_value_and_range(text: str) -> None:
    with pytest.raises(problems.BadParameter) as caught:
        parse_options({"variant": RESTORER, "strength": text}, SETTINGS)

    assert caught.value.detail == (
        f"Invalid strength {text[:40]!r}: use a number from 0 to 1 with a decimal point, such as 0.5, or auto."
    )
    assert caught.value.extensions["parameter"] == "strength"


def test_long_strength_is_rejected_before_it_is_parsed() -> None:
    """The pattern alone would need minutes for so many digits."""
    with pytest.raises(problems.BadParameter) as caught:
        parse_options({"variant": RESTORER, "strength": "9" * 131_000 + "x"}, SETTINGS)

    assert len(caught.value.detail) < 200


def test_variant_that_changes_the_size_takes_no_strength_and_the_problem_names_those_that_do() -> None:
    with pytest.raises(problems.BadParameter) as caught:
        parse_options({"variant": "compact_x4", "strength": "0.5"}, SETTINGS)

    assert caught.value.detail == (
        "The strength 0.5 cannot be used with compact_x4, which changes the size. "
        "Choose one that keeps it (color_jpeg_10), or leave the strength out."
    )
    assert caught.value.status == 400


@pytest.mark.parametrize("parameters", [{}, {"variant": "auto"}, {"variant": ""}])
def test_automatic_choice_takes_no_strength_because_it_upscales(parameters: dict[str, str]) -> None:
    with pytest.raises(problems.BadParameter, match="cannot be used with auto, which changes the size"):
        parse_options({"strength": "0.5", **parameters}, Settings())


@pytest.mark.parametrize("variant", ["compact_x4", "auto", RESTORER])
def test_full_and_automatic_strength_are_valid_for_every_variant(variant: str) -> None:
    named = {"variant": variant}
    options = parse_options(named, SETTINGS)

    full, *automatic = (parse_options({**named, "strength": strength}, SETTINGS) for strength in ("1", "auto", ""))

    assert automatic == [options, options]
    assert full == replace(options, chooses_strength=False)
    assert options.chooses_strength == (variant == RESTORER)


def test_service_without_a_variant_that_keeps_the_size_says_so() -> None:
    with pytest.raises(problems.BadParameter, match=r"offers none that keeps it, or leave the strength out\."):
        parse_options({"strength": "0"}, replace(SETTINGS, variants="compact_x4"))


@pytest.mark.parametrize("strength", ["0", "0.25", "0.5", "0.99", "1"])
def test_result_is_the_mix_of_upload_and_restoration(strength: str) -> None:
    result = restore(strength=strength)

    assert np.array_equal(read_image(result.data), mix(PIXELS, NEGATIVE, round(100 * float(strength))))


def test_result_below_full_strength_says_so_in_name_and_note() -> None:
    assert restore(strength="0.5").filename == "photo_color_jpeg_10_x1_strength50.png"
    assert restore(strength="0.5").notes == ("Strength 0.5: the result is a mix of 50 % restored and 50 % original.",)
    full = restore(strength="1.0")
    assert (full.filename, full.notes) == ("photo_color_jpeg_10_x1.png", ())


@pytest.mark.parametrize("format_", ["jpeg", "webp"])
def test_strength_applies_before_encoding_in_every_format(format_: str) -> None:
    flat = np.full((16, 16, 3), 200, np.uint8)
    restored = np.full((16, 16, 3), 55, np.uint8)

    decoded = read_image(restore(images.encode_png(flat), strength="0.25", format=format_).data)

    assert abs(decoded.astype(int) - mix(flat, restored, 25)).max() <= 2


def open_result(result: Result) -> PilImage.Image:
    return PilImage.open(BytesIO(result.data))


def test_alpha_is_not_mixed() -> None:
    alpha = images.draw_alpha(24, 32)
    data = images.save(PilImage.fromarray(np.dstack((PIXELS, alpha))), "PNG")

    mixed = np.array(open_result(restore(data, strength="0.25")))

    assert np.array_equal(mixed[..., 3], alpha)
    visible = alpha > 0
    assert np.array_equal(mixed[visible, :3], mix(PIXELS, NEGATIVE, 25)[visible])
    unchanged = np.array(open_result(restore(data, strength="0")))
    assert np.array_equal(unchanged[visible], np.dstack((PIXELS, alpha))[visible])


def test_grey_stays_grey_and_16_bits_are_mixed() -> None:
    grey = images.draw_grey(16, 16)
    samples = np.multiply(grey, 257, dtype=np.uint16)

    mixed = open_result(restore(images.save(PilImage.fromarray(grey), "PNG"), strength="0.25"))
    unchanged = open_result(restore(images.grey16_png(samples), strength="0"))
    mixed16 = open_result(restore(images.grey16_png(samples), strength="0.25"))

    assert (mixed.mode, unchanged.mode, mixed16.mode) == ("L", "I;16", "I;16")
    assert np.array_equal(np.array(mixed), np.rint((grey * 75.0 + (255.0 - grey) * 25) / 100))
    assert np.array_equal(np.array(unchanged), samples)
    assert np.array_equal(np.array(mixed16), np.rint((samples * 75.0 + (65_535.0 - samples) * 25) / 100))


def test_progress_shows_mixed_bands() -> None:
    seen: list[Progress] = []

    make_runner(Inverting()).submit(upscale_request(variant=RESTORER, strength="0.25"), "id").run(seen.append)

    bands = np.concatenate([each.band.pixels for each in seen if each.band])
    assert np.array_equal(bands, mix(PIXELS, NEGATIVE, 25))


def test_difference_to_the_upload_in_the_checks_is_that_of_the_mix() -> None:
    full, half, none = (restore(strength=strength).checks for strength in ("1", "0.5", "0"))

    assert full is not None
    assert half is not None
    assert none is not None
    assert full.back_db == pytest.approx(10 * np.log10(255**2 / 100))
    assert half.back_db == pytest.approx(full.back_db + 20 * np.log10(2))
    assert none.back_db == 99.0


class Misplaced(FakeBackend):
    """Returns a band of the wrong size."""

    def __init__(self, band: Band) -> None:
        super().__init__()
        self._band = band

    def upscale_bands(self, *_: Any, **__: Any) -> Iterator[Band]:
        yield self._band


@pytest.mark.parametrize(
    "band",
    [
        Band(0, np.zeros((25, 32, 3), np.uint8)),
        Band(1, np.zeros((24, 32, 3), np.uint8)),
        Band(0, np.zeros((24, 31, 3), np.uint8)),
        Band(-24, np.zeros((24, 32, 3), np.uint8)),
    ],
    ids=["too long", "too low", "too narrow", "above"],
)
def test_band_that_does_not_fit_is_a_fault(band: Band) -> None:
    with pytest.raises(problems.BackendFault):
        make_runner(Misplaced(band)).run(upscale_request(variant=RESTORER, strength="0.5"), "id")


def test_strengths_never_share_a_cached_result() -> None:
    keys = {
        strength: cache_key(upscale_request(variant=RESTORER, strength=strength))
        for strength in ("0", "0.5", "0.50", ".500", "0.51", "1")
    }

    assert keys["0.5"] == keys["0.50"] == keys[".500"]
    assert len({keys[strength] for strength in ("0", "0.5", "0.51", "1")}) == 4
    assert cache_key(upscale_request(variant=RESTORER)) not in keys.values()


def test_cached_result_has_the_requested_strength(make_app: MakeApp, key: str) -> None:
    client = make_app(cache_max_bytes=10**6, upscaler=Inverting()).test_client()
    query = f"?variant={BUNDLED}&strength="

    responses = [post_image(client, key, query=query + strength) for strength in ("0.5", "0.6", "0.50", "1")]

    assert [response.headers["X-Superres-Cache"] for response in responses] == ["miss", "miss", "hit", "miss"]
    assert [response.headers["X-Superres-Strength"] for response in responses] == ["0.5", "0.6", "0.5", "1"]
    assert responses[2].data == responses[0].data != responses[1].data


def test_header_and_event_name_the_strength(client: FlaskClient, key: str) -> None:
    headers = {"Accept": "text/event-stream"}

    enlarged = post_image(client, key)
    streamed = post_image(client, key, query=f"?variant={BUNDLED}&strength=0.25", headers=headers)

    assert "X-Superres-Strength" not in enlarged.headers
    name, result = read_events(streamed.data)[-1]
    assert (name, result["strength"]) == ("result", 0.25)
    assert read_events(post_image(client, key, headers=headers).data)[-1][1]["strength"] == 1


def test_invalid_strength_costs_no_upscale(client: FlaskClient, key: str, upscaler: FakeBackend) -> None:
    response = post_image(client, key, query="?strength=0%2C5")

    assert read_problem(response) == (400, "bad-parameter")
    assert upscaler.calls == []
