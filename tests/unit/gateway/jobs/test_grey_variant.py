"""A variant for colour leaves a grey image, or one with the noise of a grey one, to the variant for grey images."""

from __future__ import annotations

import numpy as np
import pytest
from flask.testing import FlaskClient

from gateway.languages.catalogue import catalogue
from swinir.auto import find_grey_variant
from swinir.zoo import VARIANTS
from testing.backend import FakeBackend
from testing.content_images import add_noise, draw_clean_photo
from testing.fixtures import MakeApp
from testing.images import draw_grey, draw_photo, encode_jpeg, encode_png
from testing.requests import form, post_image, read_events, read_image

GREY = draw_grey(40, 48)
GREY_RGB = GREY[..., np.newaxis].repeat(3, axis=2)
COLOURED = GREY_RGB.copy()
COLOURED[-1, -1, 2] ^= 1  # one pixel is enough
DENOISER, GREY_DENOISER = "compact_color_denoise_25", "compact_gray_denoise_25"
SENTENCE = f"The image is grey: {GREY_DENOISER} instead of {DENOISER}."


SHARED_SENTENCE = f"The noise is the same in red, green and blue: {GREY_DENOISER} instead of {DENOISER}."
_PHOTO = draw_clean_photo()
_NOISE = np.random.default_rng(0).normal(scale=12, size=(*_PHOTO.shape[:2], 1))
NOISY = encode_png(np.clip(np.rint(_PHOTO + _NOISE), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("name", [name for name, row in VARIANTS.items() if row.task.startswith("color_")])
def test_each_colour_variant_has_one_for_grey_images_where_that_is_published(name: str) -> None:
    grey = find_grey_variant(VARIANTS[name], VARIANTS)

    assert grey is not None
    assert (grey.channels, grey.scale, grey.strength) == (1, 1, VARIANTS[name].strength)
    assert grey.is_bundled == VARIANTS[name].is_bundled


@pytest.mark.parametrize("name", [name for name, row in VARIANTS.items() if not row.task.startswith("color_")])
def test_other_variants_serve_grey_images_themselves(name: str) -> None:
    assert find_grey_variant(VARIANTS[name], VARIANTS) is None


@pytest.mark.parametrize(
    ("variant", "grey_variant"), [(DENOISER, GREY_DENOISER), ("compact_color_jpeg_20", "compact_gray_jpeg_20")]
)
@pytest.mark.parametrize(
    ("data", "shape"),
    [
        (encode_png(GREY), (40, 48)),
        (encode_png(GREY_RGB), (40, 48, 3)),
        (encode_jpeg(GREY_RGB, quality=50), (40, 48, 3)),
        (encode_jpeg(GREY, quality=50), (40, 48)),
    ],
    ids=["grey png", "rgb png", "rgb jpeg", "grey jpeg"],
)
def test_grey_image_is_restored_by_the_grey_variant(
    client: FlaskClient,
    key: str,
    upscaler: FakeBackend,
    variant: str,
    grey_variant: str,
    data: bytes,
    shape: tuple[int, ...],
) -> None:
    response = post_image(client, key, data, f"?variant={variant}&strength=1")

    assert [call[1] for call in upscaler.calls] == [grey_variant]
    assert response.headers["X-Superres-Variant"] == grey_variant
    assert response.headers["X-Superres-Choice"] == f"The image is grey: {grey_variant} instead of {variant}."
    assert "luminance" not in response.headers.get("X-Superres-Notes", "")
    assert f"image_{variant}_x1.png" in response.headers["Content-Disposition"]
    assert read_image(response.data).shape == shape


def test_image_with_colour_is_restored_by_the_variant_by_name(
    client: FlaskClient, key: str, upscaler: FakeBackend
) -> None:
    for pixels in (COLOURED, draw_photo(40, 48)):
        response = post_image(client, key, encode_png(pixels), f"?variant={DENOISER}&strength=1")

        assert response.headers["X-Superres-Variant"] == DENOISER
        assert "X-Superres-Choice" not in response.headers
    assert [call[1] for call in upscaler.calls] == [DENOISER] * 2


def test_server_without_the_grey_variant_uses_the_variant_by_name(make_app: MakeApp, key: str) -> None:
    client = make_app(variants=DENOISER, default_variant=DENOISER, form_variant=DENOISER).test_client()

    response = post_image(client, key, encode_png(GREY), "?strength=1")

    assert response.headers["X-Superres-Variant"] == DENOISER
    assert "X-Superres-Choice" not in response.headers


def test_repeated_upload_is_a_hit_with_the_same_facts(make_app: MakeApp, key: str, upscaler: FakeBackend) -> None:
    client = make_app(cache_max_bytes=10_000_000).test_client()
    query = f"?variant={DENOISER}&strength=1"

    first, again = (post_image(client, key, encode_png(GREY), query) for _ in range(2))
    by_name = post_image(client, key, encode_png(GREY), f"?variant={GREY_DENOISER}&strength=1")

    assert [one.headers["X-Superres-Cache"] for one in (first, again, by_name)] == ["miss", "hit", "hit"]
    assert len(upscaler.calls) == 1
    for name in ("X-Superres-Variant", "X-Superres-Choice", "Content-Disposition"):
        assert again.headers[name] == first.headers[name]
    assert "X-Superres-Choice" not in by_name.headers
    assert f"image_{GREY_DENOISER}_x1.png" in by_name.headers["Content-Disposition"]


def test_events_and_the_page_say_why(client: FlaskClient, key: str) -> None:
    streamed = post_image(
        client, key, encode_png(GREY), f"?variant={DENOISER}", headers={"Accept": "text/event-stream"}
    )
    page = client.post("/", follow_redirects=True, **form(encode_png(GREY), "scan.png", variant=DENOISER))

    events = dict(read_events(streamed.data))
    assert events["choice"] == {
        "kind": "grey image",
        "variant": GREY_DENOISER,
        "alternative": "",
        "sentence": SENTENCE,
    }
    assert events["result"]["choice"] == events["choice"]
    assert events["result"]["variant"] == GREY_DENOISER
    assert SENTENCE in page.get_data(as_text=True)


def test_noise_that_is_the_same_in_all_channels_is_removed_by_the_grey_variant(client: FlaskClient, key: str) -> None:
    response = post_image(client, key, NOISY, f"?variant={DENOISER}")

    assert response.headers["X-Superres-Variant"] == GREY_DENOISER
    assert response.headers["X-Superres-Choice"] == SHARED_SENTENCE
    assert "This variant restores luminance only" in response.headers["X-Superres-Notes"]


def test_noise_of_its_own_in_each_channel_is_removed_by_the_variant_for_colour(client: FlaskClient, key: str) -> None:
    response = post_image(client, key, encode_png(add_noise(_PHOTO, 12)), f"?variant={DENOISER}")

    assert response.headers["X-Superres-Variant"] == DENOISER
    assert "X-Superres-Choice" not in response.headers


def test_noise_does_not_matter_for_the_repair_of_a_jpeg(make_app: MakeApp, key: str) -> None:
    client = make_app(cache_max_bytes=10_000_000).test_client()

    queries = [f"?variant={name}&strength=1" for name in (DENOISER, "compact_color_jpeg_20", DENOISER)]
    used = [post_image(client, key, NOISY, query) for query in queries]

    assert [one.headers["X-Superres-Variant"] for one in used] == [
        GREY_DENOISER,
        "compact_color_jpeg_20",
        GREY_DENOISER,
    ]
    assert [one.headers["X-Superres-Cache"] for one in used] == ["miss", "miss", "hit"]
    assert used[2].headers["X-Superres-Choice"] == SHARED_SENTENCE


@pytest.mark.parametrize(
    ("english", "german"),
    [
        (SENTENCE, f"Das Bild ist grau: {GREY_DENOISER} statt {DENOISER}."),
        (SHARED_SENTENCE, f"Das Rauschen ist in Rot, Grün und Blau gleich: {GREY_DENOISER} statt {DENOISER}."),
    ],
)
def test_sentences_are_translated(english: str, german: str) -> None:
    assert catalogue("de").sentence(english) == german
