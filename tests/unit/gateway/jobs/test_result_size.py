"""Any size: which are valid, how they fit, and that results are shrunk to them."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image as PilImage

from gateway import problems
from gateway.config.settings import Settings
from gateway.jobs.choice import describe_choice
from gateway.jobs.job import Progress
from gateway.jobs.options import UpscaleRequest, make_request, parse_options
from gateway.jobs.output_options import FORMATS
from gateway.jobs.result_cache import cache_key
from gateway.jobs.result_size import parse_size
from testing import images
from testing.backend import FakeBackend
from testing.content_images import draw_clean_photo, draw_pixel_art
from testing.fixtures import MakeApp
from testing.jobs import make_runner
from testing.requests import post_image, read_events, read_image, read_problem

LANCZOS, HAMMING = PilImage.Resampling.LANCZOS, PilImage.Resampling.HAMMING
DEFAULTS = Settings()
PHOTO = images.draw_photo(90, 120)
PNG = images.encode_png(PHOTO)


def sized(data: bytes = PNG, settings: Settings = DEFAULTS, **parameters: str) -> UpscaleRequest:
    return make_request(data, "photo.png", parse_options({"variant": "compact_x4", **parameters}, settings), settings)


@pytest.mark.parametrize(
    ("parameters", "fitted"),
    [
        ({}, None),
        ({"scale": "", "width": "", "height": "", "megapixels": ""}, None),
        ({"scale": "2"}, (240, 180)),
        ({"scale": "1.5"}, (180, 135)),
        ({"scale": "1"}, (120, 90)),
        ({"scale": "+1.333333333333"}, (160, 120)),
        ({"scale": "1.0042"}, (121, 90)),
        ({"scale": "1.00416"}, (120, 90)),
        ({"scale": "25e-1"}, (300, 225)),
        ({"width": "240"}, (240, 180)),
        ({"height": "200"}, (267, 200)),
        ({"width": "240", "height": "1000"}, (240, 180)),
        ({"width": "1000", "height": "180"}, (240, 180)),
        ({"megapixels": "0.0432"}, (240, 180)),
        ({"megapixels": "0.1"}, (365, 274)),
    ],
)
def test_size_is_fitted_with_the_aspect_of_the_upload(
    parameters: dict[str, str], fitted: tuple[int, int] | None
) -> None:
    size = parse_size(parameters)

    assert size.fit(120, 90) == fitted
    assert size.is_requested == (fitted is not None)


def test_thin_image_keeps_at_least_one_pixel() -> None:
    assert parse_size({"width": "2000"}).fit(1_000, 1) == (2_000, 2)
    assert parse_size({"megapixels": "0.000001"}).fit(1, 9_000) == (1, 95)


@pytest.mark.parametrize(
    ("parameters", "detail"),
    [
        ({"scale": "2x"}, "Invalid scale '2x': use a number from 1 to 8 with a decimal point, such as 1.5."),
        ({"scale": "0.99"}, "Invalid scale '0.99': use a number from 1 to 8 with a decimal point, such as 1.5."),
        ({"scale": "8.01"}, "Invalid scale '8.01': use a number from 1 to 8"),
        ({"scale": "1,5"}, "Invalid scale '1,5': use a number from 1 to 8"),
        ({"scale": "nan"}, "Invalid scale 'nan': "),
        ({"scale": "1e999999999"}, "Invalid scale '1e999999999': "),
        ({"scale": "9" * 131_000}, f"Invalid scale '{'9' * 40}': "),
        ({"width": "0"}, "Invalid width '0': use a whole number of pixels from 1 to 65,500."),
        ({"width": "65501"}, "Invalid width '65501': use a whole number of pixels from 1 to 65,500."),
        ({"height": "100px"}, "Invalid height '100px': use a whole number of pixels"),
        ({"height": "1.5"}, "Invalid height '1.5': "),
        ({"width": "-5"}, "Invalid width '-5': "),
        ({"height": "\N{ARABIC-INDIC DIGIT FIVE}"}, "Invalid height "),
        ({"megapixels": "0"}, "Invalid megapixels '0': use a number above 0, up to 1,000 with a decimal point"),
        ({"megapixels": "1000.1"}, "Invalid megapixels '1000.1': use a number above 0"),
        ({"scale": "2", "width": "100"}, "scale and width were sent together. Send only scale, only megapixels, or"),
        ({"width": "1", "height": "1", "megapixels": "1"}, "width and height and megapixels were sent together."),
    ],
)
def test_invalid_size_is_rejected_with_what_is_valid(parameters: dict[str, str], detail: str) -> None:
    with pytest.raises(problems.BadParameter) as caught:
        parse_options(parameters, Settings())

    assert caught.value.detail.startswith(detail)
    assert caught.value.extensions["parameter"] in parameters


@pytest.mark.parametrize(
    ("parameters", "detail"),
    [
        (
            {"variant": "compact_x2", "scale": "3"},
            (
                "The requested size 360 x 270 is too large: compact_x2 makes at most 240 x 180 (2x). Request less, or "
                "choose a variant that makes more: compact_x4, compact_real_x4 or compact_photo_x4."
            ),
        ),
        (
            {"variant": "compact_x4", "width": "481"},
            "The requested size 481 x 361 is too large: compact_x4 makes at most 480 x 360 (4x). Request less.",
        ),
        (
            {"variant": "auto", "scale": "4.1"},
            "The requested size 492 x 369 is too large: auto makes at most 480 x 360 (4x). Request less.",
        ),
        (
            {"variant": "compact_color_denoise_25", "scale": "2"},
            (
                "The requested size 240 x 180 is too large: compact_color_denoise_25 keeps 120 x 90. Leave the size "
                "out, or choose a variant that makes more: compact_x4, compact_x2 or compact_real_x4."
            ),
        ),
        (
            {"variant": "compact_x4", "height": "89"},
            (
                "The requested size 119 x 89 is smaller than the upload, 120 x 90: what the network adds would be "
                "lost. Request at least 120 x 90, or shrink the image without this service."
            ),
        ),
    ],
)
def test_size_that_cannot_be_made_is_rejected_with_the_limit(parameters: dict[str, str], detail: str) -> None:
    with pytest.raises(problems.BadParameter) as caught:
        sized(PNG, DEFAULTS, **parameters)

    assert caught.value.detail == detail
    assert caught.value.extensions["parameter"] == next(name for name in parameters if name != "variant")


def test_variant_that_keeps_the_size_takes_scale_1() -> None:
    request = sized(variant="compact_color_denoise_25", scale="1")

    assert (request.shrunk_to, request.filename) == (None, "photo_compact_color_denoise_25_x1.png")


def test_whole_scale_of_the_variant_is_not_shrunk() -> None:
    plain, whole = sized(), sized(scale="4")

    assert (whole.shrunk_to, whole.width, whole.height, whole.filename) == (None, 480, 360, "photo_compact_x4.png")
    assert cache_key(whole) == cache_key(plain)


@pytest.mark.parametrize(
    ("parameters", "size"),
    [({"scale": "2"}, (240, 180)), ({"scale": "1.5"}, (180, 135)), ({"width": "301"}, (301, 226))],
)
@pytest.mark.parametrize("format_", FORMATS)
def test_result_has_the_requested_size_and_says_so(
    parameters: dict[str, str], size: tuple[int, int], format_: str
) -> None:
    result = make_runner(FakeBackend()).run(sized(PNG, DEFAULTS, format=format_, quality="100", **parameters), "id")

    expected = PilImage.fromarray(PHOTO.repeat(4, axis=0).repeat(4, axis=1)).resize(size, LANCZOS)
    opened = PilImage.open(BytesIO(result.data))
    assert (result.width, result.height) == opened.size == size
    assert abs(read_image(result.data).astype(int) - np.asarray(expected)).mean() < (1 if format_ == "png" else 8)
    assert result.filename == f"photo_compact_x4_{size[0]}x{size[1]}.{format_}"
    assert f"Upscaled 4x by compact_x4, then shrunk to {size[0]} x {size[1]} pixels." in result.notes


def test_pixels_and_alpha_are_those_of_the_whole_image_shrunk() -> None:
    alpha = images.draw_alpha(90, 120)
    data = images.encode_png(np.dstack((PHOTO, alpha)))
    seen: list[Progress] = []

    result = make_runner(FakeBackend()).submit(sized(data, scale="2"), "id").run(seen.append)

    made = np.array(PilImage.open(BytesIO(result.data)))
    enlarged = alpha.repeat(4, axis=0).repeat(4, axis=1)  # by the fake backend: the mask is soft
    assert np.array_equal(made[..., 3], np.asarray(PilImage.fromarray(enlarged).resize((240, 180), HAMMING)))
    bands = [each.band for each in seen if each.band]
    assert np.array_equal(np.concatenate([band.pixels for band in bands]), made[..., :3])
    tops = np.cumsum([0, *(len(band.pixels) for band in bands)])
    assert [band.top for band in bands] == list(tops[:-1])
    assert {(each.width, each.height) for each in seen} == {(240, 180)}
    assert [each.left_s == 0 for each in seen] == [False, False, False, True]


def test_pixel_art_keeps_its_colours_at_whole_scales() -> None:
    art = draw_pixel_art()
    data = images.encode_png(art)

    result = make_runner(FakeBackend()).run(sized(data, variant="nearest_x4", scale="3"), "id")

    assert np.array_equal(read_image(result.data), art.repeat(3, axis=0).repeat(3, axis=1))


@pytest.mark.parametrize(
    ("data", "scale", "variant"),
    [
        (images.encode_png(draw_clean_photo()), "2", "compact_x2"),
        (images.encode_png(draw_clean_photo()), "1.5", "compact_x2"),
        (images.encode_png(draw_clean_photo()), "2.1", "compact_x4"),
        (images.encode_jpeg(draw_clean_photo(), quality=40), "2", "compact_real_x4"),
        (images.encode_png(draw_pixel_art()), "2", "nearest_x4"),
    ],
)
def test_auto_takes_the_smallest_variant_that_reaches_the_size(data: bytes, scale: str, variant: str) -> None:
    job = make_runner(FakeBackend()).submit(sized(data, variant="auto", scale=scale), "id")
    job.run()

    choice = describe_choice(job.request.options)
    assert choice
    assert choice.variant == variant
    assert choice.sentence.endswith(f": {variant}.")


def test_auto_takes_a_variant_that_makes_few_enough_pixels_and_says_so() -> None:
    worn = images.encode_jpeg(draw_clean_photo(60, 70), quality=40)
    settings = Settings(max_output_pixels=60 * 70 * 4)
    job = make_runner(FakeBackend()).submit(sized(worn, settings, variant="auto", scale="2"), "id")

    job.run()

    choice = describe_choice(job.request.options)
    assert choice
    assert choice.sentence.endswith(
        ": compact_x2. compact_real_x4 would fit better, but it makes too many pixels of an image of this size."
    )


def test_sizes_that_give_equal_pixels_share_a_cached_result() -> None:
    keys = [
        cache_key(sized(PNG, DEFAULTS, **size))
        for size in ({"scale": "2"}, {"width": "240"}, {"height": "180"}, {"scale": "3"})
    ]

    assert keys[0] == keys[1] == keys[2]
    assert len({*keys, cache_key(sized())}) == 3


def test_response_headers_event_and_cache_have_the_final_size(make_app: MakeApp, key: str) -> None:
    client = make_app(cache_max_bytes=10**6).test_client()
    query = "?variant=compact_x4&scale=1.5"

    first, second = (post_image(client, key, PNG, query) for _ in range(2))
    events = read_events(
        post_image(
            client, key, PNG, "?scale=2&variant=compact_x4&bands=1", headers={"Accept": "text/event-stream"}
        ).data
    )

    assert first.headers["X-Superres-Size"] == "180x135"
    assert "photo" not in first.headers["Content-Disposition"]
    assert "_180x135.png" in first.headers["Content-Disposition"]
    assert [each.headers["X-Superres-Cache"] for each in (first, second)] == ["miss", "hit"]
    bands = [data for name, data in events if name == "band"]
    assert {(band["width"], band["height"]) for band in bands} == {(240, 180)}
    assert sum(band["rows"] for band in bands) == 180
    assert (events[-1][1]["width"], events[-1][1]["height"]) == (240, 180)


def test_rate_limit_charges_the_upload_whatever_the_size(make_app: MakeApp, key: str) -> None:
    client = make_app(client_megapixels="2 per hour").test_client()
    data = images.encode_png(np.zeros((1_000, 1_000, 3), np.uint8))

    statuses = [
        post_image(client, key, data, f"?variant=compact_x4&{size}&format=jpeg").status_code
        for size in ("scale=1", "scale=4", "scale=2")
    ]

    assert statuses == [200, 200, 429]


def test_form_with_empty_size_fields_is_served(client: FlaskClient, key: str) -> None:
    fields = {"image": (BytesIO(PNG), "photo.png"), "scale": "2", "width": "", "height": "", "megapixels": ""}

    response = client.post(
        "/api/v1/upscale", data=fields, content_type="multipart/form-data", headers={"X-API-Key": key}
    )

    assert response.headers["X-Superres-Size"] == "240x180"


def test_size_that_cannot_be_made_costs_nothing(make_app: MakeApp, key: str, upscaler: FakeBackend) -> None:
    client = make_app(client_megapixels="1 per hour").test_client()

    responses = [post_image(client, key, PNG, "?variant=compact_x2&scale=4") for _ in range(3)]

    assert {read_problem(response) for response in responses} == {(400, "bad-parameter")}
    assert upscaler.calls == []
