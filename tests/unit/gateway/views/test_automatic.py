"""Over HTTP: form and API choose the variant by the image unless one is named, and say which and why."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from testing.backend import FakeBackend
from testing.content_images import draw_clean_photo, draw_pixel_art
from testing.fixtures import MakeApp
from testing.images import encode_jpeg, encode_png
from testing.requests import form, post_image, read_events, read_image

WORN = encode_jpeg(draw_clean_photo(), quality=30)
ART = draw_pixel_art()
EVENTS = {"Accept": "text/event-stream"}


@pytest.mark.parametrize("query", ["", "?variant=auto"])
def test_api_says_what_it_chose_and_why(client: FlaskClient, key: str, query: str) -> None:
    response = post_image(client, key, WORN, query)

    assert response.headers["X-Superres-Variant"] == "compact_real_x4"
    assert response.headers["X-Superres-Choice"] == "Looks like a worn JPEG (JPEG quality 30): compact_real_x4."
    assert "image_compact_real_x4.png" in response.headers["Content-Disposition"]


def test_variant_by_name_has_no_choice(client: FlaskClient, key: str) -> None:
    response = post_image(client, key, WORN, "?variant=compact_x4")

    assert response.headers["X-Superres-Variant"] == "compact_x4"
    assert "X-Superres-Choice" not in response.headers


def test_operator_may_fix_the_default(make_app: MakeApp, key: str) -> None:
    client = make_app(default_variant="compact_x4").test_client()
    assert "X-Superres-Choice" not in post_image(client, key, WORN).headers
    assert "X-Superres-Choice" in post_image(client, key, WORN, "?variant=auto").headers


def test_repeated_upload_is_a_hit_under_the_chosen_variant(make_app: MakeApp, key: str, upscaler: FakeBackend) -> None:
    client = make_app(cache_max_bytes=10_000_000).test_client()
    first = post_image(client, key, WORN)
    by_name = post_image(client, key, WORN, "?variant=compact_real_x4")
    again = post_image(client, key, WORN)

    assert [one.headers["X-Superres-Cache"] for one in (first, by_name, again)] == ["miss", "hit", "hit"]
    assert again.headers["X-Superres-Choice"] == first.headers["X-Superres-Choice"]
    assert len(upscaler.calls) == 1
    events = dict(read_events(post_image(client, key, WORN, headers=EVENTS).data))
    assert events["choice"]["sentence"] == first.headers["X-Superres-Choice"]
    assert events["result"]["choice"] == events["choice"]


def test_pixel_art_stays_exact_without_the_backend(client: FlaskClient, key: str, upscaler: FakeBackend) -> None:
    response = post_image(client, key, encode_png(ART))

    assert response.headers["X-Superres-Variant"] == "nearest_x4"
    assert (read_image(response.data) == ART.repeat(4, axis=0).repeat(4, axis=1)).all()
    assert upscaler.calls == []


def test_result_page_names_the_choice_and_links_to_the_other_variant(client: FlaskClient) -> None:
    page = client.post("/", follow_redirects=True, **form(WORN, "old.jpg")).get_data(as_text=True)

    assert "Looks like a worn JPEG (JPEG quality 30): compact_real_x4." in page
    assert 'href="/?variant=compact_x4"' in page
    by_name = client.post("/", follow_redirects=True, **form(WORN, "old.jpg", variant="compact_x4")).get_data(
        as_text=True
    )
    assert "Looks like" not in by_name


def test_result_of_repeated_pixels_claims_no_licence_of_weights(client: FlaskClient) -> None:
    page = client.post("/", follow_redirects=True, **form(encode_png(ART))).get_data(as_text=True)

    assert "Pixels repeated, without a network." in page
    assert "Licence of the weights" not in page
