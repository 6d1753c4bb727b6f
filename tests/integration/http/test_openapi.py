"""The OpenAPI description matches the routes, problems and options; schemathesis finds no difference."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import validate
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

from gateway.access.api_keys import ApiKeyStore
from gateway.backend.state import StateName
from gateway.jobs.options import PARAMETERS
from gateway.jobs.output_options import FORMAT_VALUES
from gateway.problems import all_problems
from gateway.views.api_description import DOCUMENT
from scripts.openapi import SOURCE, build_document, format_document
from swinir.zoo import VARIANTS
from testing.data import ROOT
from testing.fixtures import MakeApp
from testing.server import serving

EXAMPLES = 12
"""Examples per operation and kind; about 300 requests with the coverage phase."""
LIMIT_S = 300.0
HIGH_RATE = "100000 per minute"


@pytest.fixture
def described(client: FlaskClient) -> dict[str, Any]:
    read: dict[str, Any] = client.get("/api/openapi.json").get_json()
    return read


def operations_of(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, method and description of each operation."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield path, method, operation


def test_json_is_that_of_the_source() -> None:
    expected = format_document(build_document(SOURCE.read_text()))

    assert DOCUMENT.read_text() == expected, "run python -m scripts.openapi"


def test_document_is_valid_openapi(described: dict[str, Any]) -> None:
    validate(described)
    del described["paths"]["/api/v1/upscale"]["post"]["responses"]
    del described["paths"]["/healthz"]["get"]["responses"]["200"]["description"]
    with pytest.raises(OpenAPIValidationError):
        validate(described)


@pytest.mark.parametrize("before", ["", "/superres"])
def test_yaml_and_json_are_one_document(make_app: MakeApp, before: str) -> None:
    client = make_app(public_url=f"https://example.org{before}").test_client()

    as_yaml, as_json = client.get(f"{before}/api/openapi.yaml"), client.get(f"{before}/api/openapi.json")

    assert (as_yaml.status_code, as_yaml.mimetype) == (200, "application/yaml")
    assert (as_json.status_code, as_json.mimetype) == (200, "application/json")
    assert yaml.safe_load(as_yaml.data) == as_json.get_json()
    assert as_json.get_json()["servers"][0]["url"] == (before or "/")


def test_every_route_is_described_and_no_other(app: Flask, described: dict[str, Any]) -> None:
    routes = {
        (rule.rule.replace("<", "{").replace(">", "}"), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) & {"GET", "POST", "DELETE"}
        if not rule.endpoint.startswith("files.")  # for browsers
    }

    assert {(path, method) for path, method, _ in operations_of(described)} == routes


def test_every_problem_has_an_example_in_responses_of_its_status(described: dict[str, Any]) -> None:
    components = described["components"]
    examples = {slug: example["value"] for slug, example in components["examples"].items()}
    statuses: dict[str, set[int]] = {}
    for _, _, operation in operations_of(described):
        for status, response in operation["responses"].items():
            named = components["responses"].get(response.get("$ref", "").rpartition("/")[2], response)
            for slug in named.get("content", {}).get("application/problem+json", {}).get("examples", {}):
                statuses.setdefault(slug, set()).add(int(status))

    expected = {kind.slug: (kind.title, kind.status) for kind in all_problems()}
    assert {slug: (value["title"], value["status"]) for slug, value in examples.items()} == expected
    assert statuses == {slug: {status} for slug, (_, status) in expected.items()}


def test_forms_have_the_parameters_of_the_query_and_no_defaults(described: dict[str, Any]) -> None:
    """A generated client would send defaults in the query and in the form, which the gateway refuses."""
    schemas, parameters = described["components"]["schemas"], described["components"]["parameters"]
    query = {name for name, parameter in parameters.items() if parameter["in"] == "query"}

    assert schemas["UpscaleForm"]["properties"].keys() == query | {"image"}
    assert query >= set(PARAMETERS)
    assert schemas["PageForm"]["properties"].keys() == {*PARAMETERS, "image", "token"}
    assert all("default" not in schema for schema in schemas.values())


def test_parameters_list_the_available_values(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]

    assert schemas["Format"]["enum"] == list(FORMAT_VALUES)
    bundled = [name for name, variant in VARIANTS.items() if variant.is_bundled]
    assert schemas["Variant"]["examples"] == ["auto", *bundled, "nearest_x4"]
    assert "enum" not in schemas["Variant"], "the operator may offer others"
    assert schemas["BackendState"]["enum"] == list(StateName.__args__)  # type: ignore[attr-defined]


def test_schemathesis_finds_no_fault(tmp_path: Path) -> None:
    limits = {
        f"SUPERRES_{name}": HIGH_RATE
        for name in (
            "ANONYMOUS_REQUESTS",
            "ANONYMOUS_MEGAPIXELS",
            "CLIENT_REQUESTS",
            "CLIENT_MEGAPIXELS",
            "WAKE_RATE",
            "BAN_AFTER",
        )
    }
    with serving(tmp_path, **limits) as server:
        key = ApiKeyStore(tmp_path / "keys.json").new("tests")
        address = f"http://127.0.0.1:{server.port}"
        command = [
            str(Path(sys.executable).with_name("st")),
            "--config-file",
            str(ROOT / "schemathesis.toml"),
            "run",
            f"{address}/api/openapi.yaml",
            "--header",
            f"X-API-Key: {key}",
            "--header",
            f"Authorization: Bearer {key}",
            "--max-examples",
            str(EXAMPLES),
            "--seed",
            "1",
            "--generation-database",
            "none",
            "--no-color",
        ]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )

        assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
        count = len(list(operations_of(json.loads(DOCUMENT.read_text())))) - 1  # all but the one that is its own source
        assert f"Tested: {count}" in done.stdout, "an operation was left out"
        assert "Traceback" not in server.log()
        assert server.process.poll() is None
