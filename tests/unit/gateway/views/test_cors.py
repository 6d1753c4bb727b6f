"""gateway.views.cors: which scripts of other sites may call the API, and which headers they may read."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from gateway.access.ip_blocklist import Blocklist
from gateway.views.cors import ALLOWED_HEADERS, EXPOSED_HEADERS
from testing.backend import FakeBackend
from testing.fixtures import MakeApp
from testing.requests import PHOTO, form, read_problem

APP, OTHER = "https://app.example", "https://other.example"
# Responses of a deprecated part of the API have them (docs/reference/compatibility.md).
DEPRECATION = ("Deprecation", "Link", "Sunset")
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key,content-type"}


def cors_headers(response: TestResponse) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("Access-Control-")}


@pytest.mark.parametrize("path", ["/api/v1/upscale", "/api/v1/wake", "/api/v1/variants", "/api/v1/nothing"])
def test_preflight_of_an_allowed_origin_needs_no_key(make_app: MakeApp, upscaler: FakeBackend, path: str) -> None:
    client = make_app(api_origins=f"{OTHER}, {APP}:443").test_client()

    response = client.options(path, headers={"Origin": APP, **PREFLIGHT})

    headers = cors_headers(response)
    assert (response.status_code, response.data) == (204, b"")
    assert headers["Access-Control-Allow-Origin"] == APP
    assert {"GET", "POST"} <= set(headers["Access-Control-Allow-Methods"].split(", "))
    assert {"X-API-Key", "Content-Type", "Prefer", "Accept", "Authorization"} <= set(
        headers["Access-Control-Allow-Headers"].split(", ")
    )
    assert headers["Access-Control-Max-Age"] == "7200"
    assert "Access-Control-Allow-Credentials" not in headers
    assert response.vary.as_set() == {"origin"}
    assert upscaler.wakes == 0


@pytest.mark.parametrize(
    ("api_origins", "path", "origin"),
    [
        ("", "/api/v1/upscale", APP),
        (APP, "/api/v1/upscale", OTHER),
        (APP, "/api/v1/upscale", "null"),
        (APP, "/api/v1/upscale", f"{APP}.evil.example"),
        (APP, "/api/v1/upscale", f"{APP}:8443"),
        (APP, "/api/v1/upscale", ""),
        (APP, "/", APP),
        ("*", "/", APP),
        ("*", "/healthz", APP),
    ],
)
def test_other_origins_and_paths_get_no_cors_header(
    make_app: MakeApp, key: str, api_origins: str, path: str, origin: str
) -> None:
    client = make_app(api_origins=api_origins).test_client()

    preflight = client.options(path, headers={"Origin": origin, **PREFLIGHT})
    request = client.post(path, data=PHOTO, headers={"Origin": origin, "X-API-Key": key})

    assert cors_headers(preflight) == cors_headers(request) == {}


@pytest.mark.parametrize(("api_origins", "allowed"), [(APP, APP), ("*", "*"), (f"{OTHER},*", "*")])
def test_script_may_read_a_result_and_its_headers(make_app: MakeApp, key: str, api_origins: str, allowed: str) -> None:
    client = make_app(api_origins=api_origins).test_client()

    response = client.post(
        "/api/v1/upscale", data=PHOTO, headers={"Origin": APP, "X-API-Key": key, "Sec-Fetch-Site": "cross-site"}
    )

    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == allowed
    assert "origin" in response.vary.as_set()
    sent = {
        name
        for name, _ in response.headers.items()
        if name.startswith(("X-Su", "X-Ra", "X-Req", "RateLimit", "Content-D"))
    }
    assert len(sent) > 8
    assert sent <= set(response.headers["Access-Control-Expose-Headers"].split(", "))


def test_script_may_read_errors(make_app: MakeApp, key: str) -> None:
    client = make_app(api_origins=APP, client_requests="1 per hour").test_client()

    def ask(**headers: str) -> TestResponse:
        return client.post("/api/v1/upscale", data=b"text", headers={"Origin": APP, **headers})

    responses = [
        ask(),
        ask(**{"X-API-Key": key}),
        ask(**{"X-API-Key": key}),
        client.get("/api/x", headers={"Origin": APP}),
    ]

    assert [response.status_code for response in responses] == [401, 415, 429, 404]
    for response in responses:
        assert response.headers["Access-Control-Allow-Origin"] == APP
    assert "Retry-After" in responses[2].headers
    assert "Retry-After" in responses[2].headers["Access-Control-Expose-Headers"]


def test_scripts_may_send_and_read_every_header_that_openapi_lists(client: FlaskClient) -> None:
    document = client.get("/api/openapi.json").get_json()
    components = document["components"]
    sent, read = {"Accept", "Authorization", "Content-Type", "X-API-Key"}, set(DEPRECATION)
    for path, item in document["paths"].items():
        for operation in item.values() if path.startswith("/api/") else ():
            if isinstance(operation, dict):
                for one in operation.get("parameters", []):
                    parameter = components["parameters"].get(one.get("$ref", "").rpartition("/")[2], one)
                    sent |= {parameter["name"]} if parameter["in"] == "header" else set()
                for one in operation["responses"].values():
                    read |= components["responses"].get(one.get("$ref", "").rpartition("/")[2], one)["headers"].keys()

    assert sent == set(ALLOWED_HEADERS["Access-Control-Allow-Headers"].split(", "))
    assert read == set(EXPOSED_HEADERS)


def test_responses_vary_by_origin_for_origins_that_are_not_allowed_too(make_app: MakeApp) -> None:
    client = make_app(api_origins=APP).test_client()

    assert "origin" in client.get("/api/v1/variants").vary.as_set()
    assert "origin" not in client.get("/").vary.as_set()


def test_blocked_network_gets_no_preflight(make_app: MakeApp, tmp_path: Path) -> None:
    Blocklist(tmp_path / "blocks.txt").add("127.0.0.0/8", "")

    response = make_app(api_origins="*").test_client().options("/api/v1/upscale", headers={"Origin": APP, **PREFLIGHT})

    assert read_problem(response) == (403, "blocked")
    assert "Access-Control-Allow-Methods" not in response.headers


def test_form_stays_closed_to_origins_of_the_api(make_app: MakeApp) -> None:
    client = make_app(api_origins=APP).test_client()

    response = client.post(
        "/", headers={"Origin": APP, "Sec-Fetch-Site": "cross-site", "Accept": "application/json"}, **form()
    )

    assert read_problem(response) == (403, "foreign-origin")
