"""gateway.access.trusted_proxies: scheme, host, port and path prefix, which forged headers do not change."""

from __future__ import annotations

import json
import logging
import re

import pytest
import yaml
from flask import Flask, request
from flask.testing import FlaskClient

from gateway.access.trusted_proxies import TrustedProxies
from gateway.config.origins import OWN_SEGMENTS, is_origin, parse_origins, parse_prefix
from testing.fixtures import MakeApp
from testing.requests import PHOTO, Elements, form, read_problem


@pytest.mark.parametrize(
    ("proxies", "headers", "url"),
    [
        (0, {"X-Forwarded-Proto": "https"}, "http://localhost/where"),
        (1, {"X-Forwarded-Proto": "https"}, "https://localhost/where"),
        (2, {"X-Forwarded-Proto": "http, https"}, "https://localhost/where"),
        (1, {"X-Forwarded-Proto": "gopher"}, "http://localhost/where"),
        (1, {}, "http://localhost/where"),
        (1, {"X-Forwarded-Host": "evil.example"}, "http://localhost/where"),
        (1, {"X-Forwarded-Host": "evil.example", "Host": "me.example"}, "http://me.example/where"),
    ],
)
def test_scheme_comes_from_the_nearest_proxy_and_host_from_the_host_header(
    proxies: int, headers: dict[str, str], url: str
) -> None:
    app = Flask("test")
    app.add_url_rule("/where", view_func=lambda: f"{request.url} {request.remote_addr}")
    app.wsgi_app = TrustedProxies(app.wsgi_app, proxies)  # type: ignore[method-assign]

    assert app.test_client().get("/where", headers=headers).get_data(as_text=True) == f"{url} 127.0.0.1"


@pytest.mark.parametrize("proxies", [0, 2])
def test_public_url_replaces_a_host_header_that_proxies_change(make_app: MakeApp, proxies: int) -> None:
    client = make_app(trusted_hops=proxies, public_url="https://me.example:8443").test_client()

    page = client.get("/", headers={"Host": "gateway.internal", "X-Forwarded-Proto": "http"}).get_data(as_text=True)

    assert "https://me.example:8443/api/v1/upscale" in page
    assert "gateway.internal" not in page


def test_forged_forwarded_host_does_not_allow_a_cross_site_form(make_app: MakeApp) -> None:
    headers = {"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example", "Accept": "application/json"}

    response = make_app(trusted_hops=1).test_client().post("/", headers=headers)

    assert read_problem(response) == (403, "foreign-origin")


@pytest.mark.parametrize("host", ["evil.example", "no host"])
def test_redirect_contains_no_host(client: FlaskClient, host: str) -> None:
    response = client.get("/problems//head-too-long?a=b", headers={"Host": host})

    assert (response.status_code, response.headers["Location"]) == (308, "/problems/head-too-long?a=b")
    assert response.data == b""


# A proxy that changes the port in the header Host, as nginx does with $host.


@pytest.mark.parametrize(
    ("hops", "headers", "status"),
    [
        (1, {"X-Forwarded-Host": "nas.lan:18208"}, 303),
        (1, {"X-Forwarded-Port": "18208"}, 303),
        (1, {"X-Forwarded-Host": "forged:1, nas.lan:18208"}, 303),
        (2, {"X-Forwarded-Port": "80, 18208"}, 303),
        (0, {"X-Forwarded-Host": "nas.lan:18208", "X-Forwarded-Port": "18208"}, 403),
        (1, {}, 403),
        (1, {"X-Forwarded-Host": "nas.lan:18209"}, 403),
        (1, {"X-Forwarded-Port": "18208, 80"}, 403),
        (1, {"X-Forwarded-Port": "9" * 4_000}, 403),
        (1, {"X-Forwarded-Host": "["}, 403),
    ],
)
def test_port_of_a_trusted_proxy_counts_as_our_own(
    make_app: MakeApp, hops: int, headers: dict[str, str], status: int
) -> None:
    client = make_app(trusted_hops=hops).test_client()

    sent = {"Host": "nas.lan", "Origin": "http://nas.lan:18208", "Accept": "text/html", **headers}

    assert client.post("/", headers=sent, **form()).status_code == status


def test_public_url_allows_the_origin_that_a_proxy_hides(make_app: MakeApp) -> None:
    client = make_app(trusted_hops=1, public_url="http://nas.lan:18208").test_client()

    response = client.post("/", headers={"Host": "nas.lan", "Origin": "http://nas.lan:18208"}, **form())

    assert response.status_code == 303


def test_rejected_origin_is_explained_with_both_origins_and_the_setting(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    headers = {"Host": "nas.lan", "Origin": "http://nas.lan:18208", "Accept": "application/json"}

    response = make_app(trusted_hops=1).test_client().post("/", headers=headers)

    assert read_problem(response) == (403, "foreign-origin")
    reason = "A page of http://nas.lan:18208 sent this request, and this service is http://nas.lan."
    assert reason in response.get_json()["detail"]
    assert "set SUPERRES_PUBLIC_URL=http://nas.lan:18208" in response.get_json()["detail"]
    assert "proxy_set_header Host $http_host" in response.get_json()["detail"]
    assert f"{response.headers['X-Request-Id']}: rejected, cross-site: {reason}" in caplog.text


def test_origin_that_the_browser_calls_cross_site_names_frame_ancestors(client: FlaskClient) -> None:
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Accept": "application/json"}

    detail = client.post("/", headers=headers).get_json()["detail"]

    assert "https://evil.example" in detail
    assert "SUPERRES_FRAME_ANCESTORS" in detail
    assert "SUPERRES_PUBLIC_URL" not in detail


@pytest.mark.parametrize("origin", ["https://[", "https://" + "a" * 7_000, "https://a.example/<script>"])
def test_origin_that_is_not_one_is_not_repeated(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, origin: str
) -> None:
    caplog.set_level(logging.INFO)

    response = client.post("/", headers={"Origin": origin, "Accept": "application/json"})

    assert read_problem(response) == (403, "foreign-origin")
    assert origin not in response.get_data(as_text=True)
    assert origin not in caplog.text


# A path prefix.


PREFIX = "/superres"


@pytest.mark.parametrize("path", ["/superres/", "/", "/superres"], ids=["kept", "removed", "kept, no slash"])
@pytest.mark.parametrize("by", ["public_url", "header"])
def test_every_link_of_the_page_has_the_prefix(make_app: MakeApp, by: str, path: str) -> None:
    settings = {"public_url": "https://example.org/superres/"} if by == "public_url" else {"trusted_hops": 1}
    client = make_app(**settings).test_client()

    page = client.get(path, headers={"X-Forwarded-Prefix": PREFIX}).get_data(as_text=True)

    elements = Elements(page).by_tag
    links = [
        value
        for attributes in (attributes for found in elements.values() for attributes in found)
        for name, value in attributes.items()
        if name in ("href", "src", "action", "data-url", "data-status-url", "data-wake-url") and value != "#main"
    ]
    assert len(links) > 15
    assert not [link for link in links if not (link or "").startswith(f"{PREFIX}/")]
    host = "https://example.org" if by == "public_url" else "http://localhost"
    assert f"{host}{PREFIX}/api/v1/upscale" in page


@pytest.mark.parametrize("before", ["", PREFIX], ids=["removed", "kept"])
def test_result_errors_redirects_and_openapi_have_the_prefix(make_app: MakeApp, key: str, before: str) -> None:
    client = make_app(public_url="https://example.org/superres").test_client()

    sent = client.post(f"{before}/", **form())
    assert sent.headers["Location"].startswith(f"{PREFIX}/results/")
    page = client.get(before + sent.headers["Location"].removeprefix(PREFIX)).get_data(as_text=True)
    images = [image["src"] for image in Elements(page).by_tag["img"] if "/results/" in (image["src"] or "")]
    assert len(images) == 2
    for image in images:
        assert image is not None
        assert image.startswith(f"{PREFIX}/results/")
        path = before + image.removeprefix(PREFIX)
        assert client.get(path, buffered=True).status_code == 200
    problem = client.get(f"{before}/nothing", headers={"Accept": "application/json"}).get_json()
    assert problem["type"] == f"{PREFIX}/problems/not-found"
    assert f'href="{PREFIX}/problems/not-found"' in client.get(f"{before}/nothing").get_data(as_text=True)
    assert client.get(f"{before}/problems//blocked").headers["Location"] == f"{PREFIX}/problems/blocked"
    document = yaml.safe_load(client.get(f"{before}/api/openapi.yaml").data)
    assert document["servers"][0]["url"] == PREFIX
    assert f"{PREFIX}/problems/blocked" in json.dumps(document)
    assert "/problems/{slug}" in document["paths"]
    events = client.post(
        f"{before}/api/v1/upscale?format=gif",
        data=PHOTO,
        headers={"X-API-Key": key, "Accept": "text/event-stream"},
    )
    assert events.get_json()["type"] == f"{PREFIX}/problems/bad-parameter"


def test_health_checks_work_without_the_prefix(make_app: MakeApp) -> None:
    client = make_app(public_url="https://example.org/superres").test_client()

    assert [client.get(path).status_code for path in ("/healthz", "/superres/healthz")] == [200, 200]


HOSTILE = [
    "//evil.example",
    "/\\evil.example",
    "/../..",
    "/a/../b",
    "/.",
    '/"><script>alert(1)</script>',
    "/a'b",
    "/a%2f%2fb",
    "/a?b=c",
    "/a#b",
    "https://evil.example/",
    "evil",
    "/" + "a" * 10_000,
    "/a" * 5_000,
    "/a" * 9,
    "/api",
    "/static/x",
    "/ a",
    "/é",
    "/a;b",
    "/",
    "",
]


@pytest.mark.parametrize("prefix", HOSTILE, ids=[text[:20] for text in HOSTILE])
@pytest.mark.parametrize("hops", [0, 1])
def test_invalid_prefix_changes_nothing(make_app: MakeApp, hops: int, prefix: str) -> None:
    client = make_app(trusted_hops=hops).test_client()

    def read(headers: dict[str, str]) -> str:
        page = client.get("/", headers=headers, buffered=True)
        assert page.status_code == 200
        return re.sub(r'name="token" value="[^"]+"', "", page.get_data(as_text=True))

    assert read({"X-Forwarded-Prefix": prefix}) == read({})


@pytest.mark.parametrize("settings", [{}, {"trusted_hops": 1, "public_url": "https://me.example"}])
def test_prefix_header_is_ignored_without_proxies_and_with_a_public_url(
    make_app: MakeApp, settings: dict[str, object]
) -> None:
    page = make_app(**settings).test_client().get("/", headers={"X-Forwarded-Prefix": PREFIX}).get_data(as_text=True)

    assert PREFIX + "/" not in page


def test_prefix_of_the_nearest_proxy_counts(make_app: MakeApp) -> None:
    headers = {"X-Forwarded-Prefix": "/forged, /superres"}

    page = make_app(trusted_hops=1).test_client().get("/", headers=headers).get_data(as_text=True)

    assert 'action="/superres/"' in page


def test_prefixes_that_are_our_own_paths_are_all_known(make_app: MakeApp) -> None:
    rules = {rule.rule.split("/")[1] for rule in make_app().url_map.iter_rules()} - {""}

    assert rules == set(OWN_SEGMENTS)
    assert not any(parse_prefix(f"/{segment}/x") for segment in OWN_SEGMENTS)


def test_origins_are_compared_as_browsers_write_them() -> None:
    assert parse_origins("HTTPS://App.example:443, http://a.example:80,http://b.example:8080") == {
        "https://app.example",
        "http://a.example",
        "http://b.example:8080",
    }
    assert is_origin("http://[::1]:8080")
    assert not is_origin("http://a.example/b")
