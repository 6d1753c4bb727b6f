"""Stored results: by the URL of an event, in ranges, after their time, and deleted."""

from __future__ import annotations

import base64

import pytest
from flask.testing import FlaskClient
from PIL import Image as PilImage

from gateway.services import services
from testing import images
from testing.clock import ManualClock
from testing.fixtures import MakeApp
from testing.requests import PHOTO, Elements, form, post_image, read_events, read_problem

EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture
def url(client: FlaskClient, key: str) -> str:
    """The URL of a stored result, from the event of the API."""
    found: str = read_events(post_image(client, key, headers=EVENTS).data)[-1][1]["url"]
    return found


@pytest.fixture
def whole(client: FlaskClient, key: str) -> bytes:
    """The bytes of the result at `url`."""
    return post_image(client, key).data


def test_result_is_a_download_without_a_key(client: FlaskClient, url: str, whole: bytes) -> None:
    response = client.get(url)

    assert (response.status_code, response.data) == (200, whole)
    assert response.mimetype == "image/png"
    assert response.content_length == len(whole)
    assert response.headers["Content-Disposition"] == "attachment; filename=image_compact_x4.png"
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["Cache-Control"] == "no-store"
    assert url.rpartition("/")[2] not in str(response.headers), "the id is a secret"


def test_id_is_required_in_full(client: FlaskClient, url: str) -> None:
    assert read_problem(client.get(url[:-1])) == (404, "result-gone")
    assert read_problem(client.delete(url[:-1])) == (404, "result-gone")
    assert client.get(url).status_code == 200


@pytest.mark.parametrize(
    ("text", "start", "stop"),
    [("bytes=0-9", 0, 10), ("bytes=100-", 100, None), ("bytes=-7", -7, None), ("bytes=5-999999999", 5, None)],
)
def test_range_returns_its_bytes(
    client: FlaskClient, url: str, whole: bytes, text: str, start: int, stop: int | None
) -> None:
    response = client.get(url, headers={"Range": text})

    span = range(len(whole))[start:stop]
    assert (response.status_code, response.data) == (206, whole[span.start : span.stop])
    assert response.headers["Content-Range"] == f"bytes {span.start}-{span.stop - 1}/{len(whole)}"
    assert response.content_length == len(span)


def test_interrupted_download_goes_on_where_it_ended(client: FlaskClient, url: str, whole: bytes) -> None:
    first = client.get(url)
    got = first.data[:1000]

    rest = client.get(url, headers={"Range": "bytes=1000-", "If-Range": first.headers["ETag"]})

    assert rest.status_code == 206
    assert got + rest.data == whole


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=10-", "If-Range": '"of another file"'},
        {"Range": "bytes=10-", "If-Range": "Sun, 06 Nov 1994 08:49:37 GMT"},
        {"Range": "bytes=0-1,5-6"},
        {"Range": "bytes=9-3"},
        {"Range": "lines=1-2"},
        {"Range": "nonsense"},
    ],
)
def test_range_that_cannot_be_used_gives_the_whole_file(
    client: FlaskClient, url: str, whole: bytes, headers: dict[str, str]
) -> None:
    response = client.get(url, headers=headers)

    assert (response.status_code, response.data) == (200, whole)


def test_range_beyond_the_end_is_a_problem_with_the_length(client: FlaskClient, url: str, whole: bytes) -> None:
    response = client.get(url, headers={"Range": f"bytes={len(whole)}-"})

    assert read_problem(response) == (416, "range-not-satisfiable")
    assert response.headers["Content-Range"] == f"bytes */{len(whole)}"


def test_head_reports_the_length_and_ignores_a_range(client: FlaskClient, url: str, whole: bytes) -> None:
    response = client.head(url, headers={"Range": "bytes=0-9"})

    assert (response.status_code, response.data, response.content_length) == (200, b"", len(whole))


def test_results_have_different_etags(client: FlaskClient, key: str) -> None:
    urls = [read_events(post_image(client, key, headers=EVENTS).data)[-1][1]["url"] for _ in range(2)]

    assert len({client.head(url).headers["ETag"] for url in urls}) == 2


def test_deleted_result_is_gone_from_the_cache(make_app: MakeApp, key: str) -> None:
    app = make_app(cache_max_bytes=1_000_000)
    client = app.test_client()
    result = read_events(post_image(client, key, headers=EVENTS).data)[-1][1]
    other = post_image(client, key, images.encode_png(images.draw_photo(8, 8)))

    assert client.delete(result["url"]).status_code == 204

    assert services(app).result_cache.stats().count == 1
    assert post_image(client, key).headers["X-Superres-Cache"] == "miss"
    assert other.status_code == 200


def test_deleted_result_is_gone_at_once(client: FlaskClient) -> None:
    result = read_events(client.post("/", **form(), headers=EVENTS).data)[-1][1]
    assert client.get(result["upload_url"]).data == PHOTO

    assert client.delete(result["url"]).status_code == 204

    assert read_problem(client.get(result["url"])) == (404, "result-gone")
    assert client.get(result["upload_url"]).status_code == 404
    assert read_problem(client.delete(result["url"])) == (404, "result-gone")


def test_result_is_gone_when_its_time_is_over(make_app: MakeApp, key: str, clock: ManualClock) -> None:
    client = make_app(clock=clock, results_max_age_s=60.0).test_client()
    result = read_events(post_image(client, key, headers=EVENTS).data)[-1][1]
    assert result["expires_s"] == 60.0
    assert client.get(result["url"]).status_code == 200

    clock.now += 61

    assert read_problem(client.get(result["url"])) == (404, "result-gone")


def test_upload_of_an_api_client_is_not_stored(client: FlaskClient, url: str) -> None:
    assert client.get(f"/results/{url.rpartition('/')[2]}/before").status_code == 404


@pytest.mark.parametrize(("changes", "query"), [({"results_max_bytes": 100}, ""), ({}, "?inline=1")])
def test_event_has_the_file_itself_if_it_is_not_stored(
    make_app: MakeApp, key: str, changes: dict[str, int], query: str
) -> None:
    client = make_app(**changes).test_client()

    result = read_events(post_image(client, key, query=query, headers=EVENTS).data)[-1][1]

    assert result["url"] is None
    assert base64.b64decode(result["data"]) == post_image(client, key).data


def test_url_begins_with_the_prefix_of_the_proxy(make_app: MakeApp, key: str) -> None:
    client = make_app(public_url="https://example.org/superres", trusted_hops=1).test_client()

    result = read_events(post_image(client, key, headers=EVENTS).data)[-1][1]

    assert result["url"].startswith("/superres/api/v1/results/")


def test_form_sends_the_file_within_the_event_if_there_may_be_replicas(make_app: MakeApp) -> None:
    shared = {"redis_url": "redis://127.0.0.1:1/0"}
    for changes, has_url in (({}, True), (shared, False), ({**shared, "form_result_urls": "always"}, True)):
        client = make_app(**changes).test_client()

        result = read_events(client.post("/", **form(), headers=EVENTS).data)[-1][1]

        assert (result["url"] is not None, "data" in result) == (has_url, not has_url)


def test_unavailable_redis_leaves_the_file_in_the_event(make_app: MakeApp, key: str) -> None:
    client = make_app(redis_url="redis://127.0.0.1:1/0").test_client()

    result = read_events(post_image(client, key, headers=EVENTS).data)[-1][1]

    assert result["url"] is None
    assert base64.b64decode(result["data"]) == post_image(client, key).data


def test_result_page_shows_no_upload_that_browsers_cannot_show(client: FlaskClient) -> None:
    tiff = images.save(PilImage.fromarray(images.draw_photo(24, 32)), "TIFF")
    page = client.post("/", follow_redirects=True, **form(tiff, filename="photo.tif")).get_data(as_text=True)

    assert "Browsers do not show TIFF." in page
    assert not [image for image in Elements(page).by_tag["img"] if "/before" in (image["src"] or "")]
