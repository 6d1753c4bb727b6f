"""The form, the API, the health routes, and the headers of every response."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from gateway.access.api_keys import ApiKeyStore
from gateway.access.client_ip import truncate_address
from gateway.config.settings import Settings
from gateway.logs import JsonFormatter
from testing import images
from testing.backend import FakeBackend
from testing.clock import ManualClock
from testing.fixtures import MakeApp
from testing.requests import PHOTO, Elements, api_form, form, post_image, read_image, read_problem
from testing.weights_files import write_weights_file

ENLARGED = images.draw_photo(24, 32).repeat(4, 0).repeat(4, 1)


def test_form_works_without_script_and_states_limits(make_app: MakeApp) -> None:
    client = make_app(max_upload_bytes=7_000_000, max_pixels=3_000_000, max_side=4_321).test_client()

    page = client.get("/").get_data(as_text=True)

    elements = Elements(page).by_tag
    [form_element] = elements["form"]
    assert (form_element["method"], form_element["action"]) == ("post", "/")
    assert form_element["enctype"] == "multipart/form-data"
    names = {(field["name"], field["type"]) for field in elements["input"]}
    assert names == {
        ("token", "hidden"),
        ("image", "file"),
        ("variant", "radio"),
        ("format", "radio"),
        ("scale", "radio"),
        ("width", "number"),
        ("lossless", "checkbox"),
        ("depth", "checkbox"),
        ("transparent_colour", "checkbox"),
        ("metadata", "checkbox"),
        ("quality", "number"),
        ("strength", "number"),
    }
    for limit in ("7.0\N{NO-BREAK SPACE}MB", "3\N{NO-BREAK SPACE}megapixels", "4,321\N{NO-BREAK SPACE}pixels per side"):
        assert limit in page
    for words in ("compact_x4", "Apache-2.0", "No cookies", "curl -F image=@photo.jpg", "/api/v1/upscale"):
        assert words in page


@pytest.mark.parametrize("path", ["/", "/problems/queue-full", "/nothing"])
def test_pages_have_no_inline_or_third_party_resources(client: FlaskClient, path: str) -> None:
    elements = Elements(client.get(path).get_data(as_text=True)).by_tag

    assert "style" not in elements
    assert all(script.get("src", "").startswith("/static/") for script in elements.get("script", []))  # type: ignore[union-attr]
    for attributes in (one for found in elements.values() for one in found):
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert not any((attributes.get(name) or "").startswith(("http", "//")) for name in ("src", "href"))


def test_result_page_links_both_images_and_download(client: FlaskClient) -> None:
    page = client.post("/", follow_redirects=True, **form(filename="photo.png")).get_data(as_text=True)

    elements = Elements(page).by_tag
    before_url, after_url = (image["src"] for image in elements["img"] if "/results/" in (image["src"] or ""))
    [download] = [link for link in elements["a"] if "download" in link]
    before, after, saved = (client.get(url or "") for url in (before_url, after_url, download["href"]))
    assert before.data == PHOTO
    assert np.array_equal(read_image(after.data), ENLARGED)
    assert saved.data == after.data
    assert before.headers["Content-Disposition"] == "inline; filename=photo.png"
    assert after.headers["Content-Disposition"] == "inline; filename=photo_compact_x4.png"
    assert saved.headers["Content-Disposition"] == "attachment; filename=photo_compact_x4.png"
    for response in (before, after, saved):
        assert response.mimetype == "image/png"
        assert response.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"
    assert "From 32 \N{MULTIPLICATION SIGN} 24 to" in page
    assert "128 \N{MULTIPLICATION SIGN} 96" in page


def test_result_is_gone_when_its_time_is_over(make_app: MakeApp, clock: ManualClock) -> None:
    client = make_app(clock=clock, results_max_age_s=60.0).test_client()
    page = client.post("/", follow_redirects=True, **form()).get_data(as_text=True)
    url = next(image["src"] for image in Elements(page).by_tag["img"] if "/after" in (image["src"] or ""))
    assert client.get(url or "").status_code == 200

    clock.now += 61

    gone = client.get(url or "")
    assert gone.status_code == 404
    assert "Result expired" in gone.get_data(as_text=True)


def test_result_too_large_to_store_is_a_download(make_app: MakeApp) -> None:
    response = make_app(results_max_bytes=100).test_client().post("/", **form())

    assert response.mimetype == "image/png"
    assert response.headers["Content-Disposition"] == "attachment; filename=photo_compact_x4.png"
    assert np.array_equal(read_image(response.data), ENLARGED)


def test_result_page_shows_the_notes(client: FlaskClient) -> None:
    data = images.animated_webp([images.draw_photo(8, 8), images.draw_photo(8, 8, seed=1)])

    page = client.post("/", follow_redirects=True, **form(data, "a.webp")).get_data(as_text=True)

    assert "The image is animated: only the first of its 2 frames was used." in page


def test_form_and_the_api_give_the_same_bytes(client: FlaskClient, key: str) -> None:
    page = client.post("/", follow_redirects=True, **form(format="webp", quality="80")).get_data(as_text=True)
    url = next(image["src"] for image in Elements(page).by_tag["img"] if "/after" in (image["src"] or ""))

    assert client.get(url or "").data == post_image(client, key, query="?format=webp&quality=80").data


@pytest.mark.parametrize("way", ["raw", "multipart", "as curl --data-binary sends it"])
def test_api_accepts_multipart_and_raw_bodies(client: FlaskClient, key: str, way: str) -> None:
    if way == "multipart":
        response = client.post("/api/v1/upscale", headers={"X-API-Key": key}, **api_form())
    elif way == "raw":
        response = post_image(client, key, content_type="image/png")
    else:
        response = post_image(client, key, content_type="application/x-www-form-urlencoded")

    assert response.status_code == 200
    assert np.array_equal(read_image(response.data), ENLARGED)
    assert response.content_length == len(response.data)
    headers = {
        name: response.headers.get(name) for name in ("X-Superres-Variant", "X-Superres-Size", "X-Superres-Notes")
    }
    assert headers == {"X-Superres-Variant": "compact_x4", "X-Superres-Size": "128x96", "X-Superres-Notes": None}
    assert float(response.headers["X-Superres-Seconds"]) >= 0


@pytest.mark.parametrize(
    ("format_", "media_type"), [("png", "image/png"), ("jpeg", "image/jpeg"), ("webp", "image/webp")]
)
def test_api_responds_in_the_requested_format(client: FlaskClient, key: str, format_: str, media_type: str) -> None:
    response = post_image(client, key, query=f"?format={format_}")

    assert response.mimetype == media_type
    assert response.headers["Content-Disposition"] == f"attachment; filename=image_compact_x4.{format_}"
    assert read_image(response.data).shape == (96, 128, 3)


def test_image_larger_than_one_chunk_arrives_whole(client: FlaskClient, key: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)

    response = post_image(client, key, images.encode_png(pixels), "?format=png")

    assert response.content_length is not None
    assert np.array_equal(read_image(response.data), pixels.repeat(4, 0).repeat(4, 1))


def test_notes_are_a_header(client: FlaskClient, key: str) -> None:
    response = post_image(client, key, images.cmyk_jpeg(images.draw_photo(8, 8)))

    assert "converted to sRGB" in response.headers["X-Superres-Notes"]


def test_missing_wrong_and_revoked_key_get_one_response(
    client: FlaskClient, settings_path_keys: ApiKeyStore, upscaler: FakeBackend
) -> None:
    revoked = settings_path_keys.new("gone")
    settings_path_keys.revoke("gone")
    attempts: list[dict[str, str]] = [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "ssr_wrong"},
        {"X-API-Key": revoked},
        {"X-API-Key": "x" * 5_000},
        {"Authorization": f"Bearer {revoked}"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic YTpi"},
        {"X-API-Key": "schlüssel"},
    ]

    responses = [client.post("/api/v1/upscale", data=PHOTO, headers=headers) for headers in attempts]

    assert {read_problem(response) for response in responses} == {(401, "key-required")}
    assert len({json.dumps({**response.get_json(), "request_id": ""}) for response in responses}) == 1
    assert {response.headers["WWW-Authenticate"] for response in responses} == {'Bearer realm="superres"'}
    assert upscaler.calls == []


@pytest.fixture
def settings_path_keys(app: Flask, tmp_path: Any) -> ApiKeyStore:
    del app
    return ApiKeyStore(Settings(state_dir=str(tmp_path)).keys_path())


def test_key_works_in_either_header_until_revoked(client: FlaskClient, settings_path_keys: ApiKeyStore) -> None:
    key = settings_path_keys.new("a")
    headers = [{"X-API-Key": key}, {"Authorization": f"Bearer {key}"}, {"Authorization": f"bearer  {key}"}]
    assert [client.post("/api/v1/upscale", data=PHOTO, headers=one).status_code for one in headers] == [200] * 3

    settings_path_keys.revoke("a")

    assert [client.post("/api/v1/upscale", data=PHOTO, headers=one).status_code for one in headers] == [401] * 3


def test_variants_route_lists_options_and_limits(make_app: MakeApp, tmp_path: Path) -> None:
    write_weights_file(tmp_path / "weights", "real_x4")
    body = make_app(variants="compact_x4,real_x4", max_pixels=1_000).test_client().get("/api/v1/variants").get_json()

    assert [variant["name"] for variant in body["variants"]] == ["compact_x4", "real_x4"]
    assert {"scale", "summary", "notice", "credit", "licence", "task"} <= body["variants"][0].keys()
    assert body["limits"]["max_pixels"] == 1_000
    assert body["formats"]["webp"] == {
        "max_side": 16_383,
        "max_pixels": 18_750_000,
        "max_pixels_transparent": 7_142_857,
    }
    assert (body["default_variant"], body["default_format"], body["default_quality"]) == ("auto", "png", 92)
    assert body["auto"] == dict.fromkeys(("clean photo", "worn photo", "drawing", "pixel art"), "compact_x4")


def test_variant_not_offered_is_rejected(client: FlaskClient, key: str) -> None:
    assert read_problem(post_image(client, key, query="?variant=real_x4")) == (400, "bad-parameter")


def test_health_never_asks_the_backend(client: FlaskClient, upscaler: FakeBackend) -> None:
    assert client.get("/healthz").get_json() == {"status": "ok"}
    backend = {"state": "asleep", "reason": None}
    assert client.get("/readyz").get_json() == {"status": "ready", "running": 0, "waiting": 0, "backend": backend}
    assert client.get("/").status_code == 200
    assert client.get("/api/v1/variants").status_code == 200
    assert upscaler.calls == []


def test_full_gateway_is_alive_but_not_ready(make_app: MakeApp, key: str) -> None:
    gate = threading.Event()
    upscaler = FakeBackend(gate=gate)
    app = make_app(upscaler=upscaler, max_concurrent_jobs=1, queue_size=0)
    worker = threading.Thread(target=lambda: post_image(app.test_client(), key))
    worker.start()
    assert upscaler.arrived.acquire(timeout=120)

    client = app.test_client()
    alive, ready, one_more = client.get("/healthz"), client.get("/readyz"), post_image(client, key)
    gate.set()
    worker.join(120)

    assert alive.status_code == 200
    assert read_problem(ready) == read_problem(one_more) == (503, "queue-full")
    assert int(ready.headers["Retry-After"]) >= 1
    assert client.get("/readyz").status_code == 200


def test_every_response_has_id_and_security_headers(client: FlaskClient) -> None:
    paths = ("/", "/healthz", "/static/x/page.css", "/favicon.ico", "/nothing", "/")
    responses = [client.get(path, buffered=True) for path in paths]

    assert len({response.headers["X-Request-Id"] for response in responses}) == len(responses)
    for response in responses:
        policy = response.headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert response.headers["Referrer-Policy"] == "same-origin"
        assert "Set-Cookie" not in response.headers


def test_frame_ancestors_come_from_the_settings(make_app: MakeApp) -> None:
    client = make_app(frame_ancestors="'self' https://front.example").test_client()

    policy = client.get("/").headers["Content-Security-Policy"]

    assert policy.endswith("frame-ancestors 'self' https://front.example")


def test_log_line_of_a_request_has_no_private_data(
    make_app: MakeApp, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.request")
    client = make_app(trusted_hops=1).test_client()
    headers = {"X-API-Key": key, "X-Forwarded-For": "10.1.1.1, 203.0.113.77"}

    response = client.post("/api/v1/upscale?format=webp", headers=headers, **api_form(filename="holiday.png"))
    response.close()

    [record] = [record for record in caplog.records if record.name == "gateway.request"]
    line = JsonFormatter().format(record)
    fields = json.loads(line)
    assert fields["request_id"] == response.headers["X-Request-Id"]
    assert (fields["method"], fields["route"], fields["status"]) == ("POST", "/api/v1/upscale", 200)
    assert (fields["address"], fields["bytes"]) == ("203.0.113.0/24", len(response.data))
    for secret in (key, "holiday", "203.0.113.77", "10.1.1.1"):
        assert secret not in line


@pytest.mark.parametrize(
    ("hops", "forwarded", "address"),
    [
        (0, "203.0.113.7", "127.0.0.0/24"),
        (1, "203.0.113.7", "203.0.113.0/24"),
        (1, "198.51.100.1, 203.0.113.7", "203.0.113.0/24"),
        (2, "198.51.100.1, 203.0.113.7", "198.51.100.0/24"),
        (2, "203.0.113.7", "127.0.0.0/24"),
    ],
)
def test_only_trusted_hops_count(
    make_app: MakeApp, hops: int, forwarded: str, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.request")

    make_app(trusted_hops=hops).test_client().get("/healthz", headers={"X-Forwarded-For": forwarded}).close()

    assert json.loads(JsonFormatter().format(caplog.records[-1]))["address"] == address


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1::/48"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("", "-"),
        ("unix", "-"),
    ],
)
def test_addresses_are_truncated(address: str, network: str) -> None:
    assert truncate_address(address) == network


def test_form_weighs_little(client: FlaskClient) -> None:
    """Count every file that `/` loads, except images, as it is transferred."""
    page = client.get("/").get_data(as_text=True)
    elements = Elements(page).by_tag
    urls = {script["src"] for script in elements["script"]} | {
        link["href"] for link in elements["link"] if link["rel"] in ("stylesheet", "modulepreload")
    }

    packed = {"Accept-Encoding": "gzip, deflate, br"}
    weights = {url: len(client.get(url or "", headers=packed, buffered=True).data) for url in urls}

    assert len(page.encode()) + sum(weights.values()) < 75_000, weights
