"""gateway.views.api_description: the OpenAPI document as JSON, YAML and a page."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import yaml
from flask.testing import FlaskClient

from gateway.problems import all_problems
from gateway.views.api_description import format_yaml
from testing.fixtures import MakeApp
from testing.requests import PHOTO


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "a: b # c",
        "- x",
        "null",
        "1",
        "two\nlines",
        "ü €",
        "'\"\\",
        "",
        0,
        0.5,
        True,
        None,
        [],
        {},
        [[1], {"a": []}],
    ],
)
def test_yaml_keeps_every_kind_of_value(value: object) -> None:
    document = {"plain": value, "/jobs/{id}": {"200": [value]}, "a b": 1}

    assert yaml.safe_load(format_yaml(document)) == document


def test_json_keeps_the_order_of_media_types(client: FlaskClient) -> None:
    """Generators take the first type that they know: for the result of an upscale it must be bytes."""
    document = client.get("/api/openapi.json").get_json()

    content = document["paths"]["/api/v1/upscale"]["post"]["responses"]["200"]["content"]
    assert next(iter(content)) == "application/octet-stream"


def test_docs_link_to_each_operation_schema_and_problem(make_app: MakeApp) -> None:
    client = make_app(public_url="https://example.org/superres").test_client()

    page = client.get("/superres/docs").get_data(as_text=True)

    ids = Counter(re.findall(r'id="([^"]+)"', page))
    assert set(ids.values()) == {1}
    assert set(re.findall(r'href="#([^"]+)"', page)) <= ids.keys()
    document = client.get("/superres/api/openapi.json").get_json()
    operations = [
        one["operationId"] for item in document["paths"].values() for one in item.values() if "operationId" in one
    ]
    assert {*operations, *(f"schema-{name}" for name in ("Job", "Quote", "Problem", "UpscaleForm"))} <= ids.keys()
    for kind in all_problems():
        assert f'href="/superres/problems/{kind.slug}"' in page


def test_result_is_bytes_without_a_type_for_clients_that_prefer_it(client: FlaskClient, key: str) -> None:
    types = [
        client.post("/api/v1/upscale", data=PHOTO, headers={"X-API-Key": key, "Accept": accept}).mimetype
        for accept in ("application/octet-stream", "image/png", "*/*")
    ]

    assert types == ["application/octet-stream", "image/png", "image/png"]
