"""The OpenAPI description matches the routes, problems and options; schemathesis finds no difference."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask
from flask.testing import FlaskClient

from gateway.access.api_keys import ApiKeyStore
from gateway.backend.state import StateName
from gateway.jobs.options import FORMATS
from gateway.problems import Problem, all_problems
from swinir.zoo import VARIANTS
from testing.data import ROOT
from testing.server import serving

EXAMPLES = 12
"""Examples per operation and kind; about 300 requests with the coverage phase."""
LIMIT_S = 300.0
HIGH_RATE = "100000 per minute"


@pytest.fixture
def described(client: FlaskClient) -> dict[str, Any]:
    response = client.get("/api/openapi.yaml")
    assert (response.status_code, response.mimetype) == (200, "application/yaml")
    read: dict[str, Any] = yaml.safe_load(response.data)
    return read


def test_every_route_is_described_and_no_other(app: Flask, described: dict[str, Any]) -> None:
    routes = {
        (rule.rule.replace("<", "{").replace(">", "}"), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) & {"GET", "POST"}
        if not rule.endpoint.startswith("files.")  # for browsers
    }

    assert {(path, method) for path, operations in described["paths"].items() for method in operations} == routes


def test_every_problem_type_is_listed(described: dict[str, Any]) -> None:
    slugs = [kind.slug for kind in all_problems()]
    schemas = described["components"]["schemas"]

    assert sorted(schemas["Problem"]["properties"]["type"]["enum"]) == sorted(f"/problems/{slug}" for slug in slugs)
    assert sorted(schemas["Slug"]["enum"]) == sorted(slugs)


def test_every_problem_status_is_documented(described: dict[str, Any]) -> None:
    statuses = {
        int(status)
        for operations in described["paths"].values()
        for operation in operations.values()
        for status in operation["responses"]
    }

    assert {kind.status for kind in all_problems(Problem)} - statuses == {405, 416, 431}, (
        "of no operation: methods, files, heads"
    )


def test_parameters_list_the_available_values(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]

    assert schemas["Format"]["enum"] == list(FORMATS)
    bundled = [name for name, variant in VARIANTS.items() if variant.is_bundled]
    assert schemas["Variant"]["enum"] == ["auto", *bundled, "nearest_x4"]
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
        paths = yaml.safe_load((ROOT / "gateway" / "openapi.yaml").read_text())["paths"]
        count = sum(len(operations) for operations in paths.values()) - 1  # all but the one that is its own source
        assert f"Tested: {count}" in done.stdout, "an operation was left out"
        assert "Traceback" not in server.log()
        assert server.process.poll() is None
