"""The two schemas of a Knative Service: the CRD's and the project's."""

from __future__ import annotations

import gzip
import json
from functools import cache
from typing import Any

import jsonschema
import yaml

from testing.data import ROOT
from testing.k8s.manifests import K8S, Manifest

OUR_SCHEMA = json.loads((K8S / "base" / "knative-service.schema.json").read_text())


@cache
def ours() -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator({**OUR_SCHEMA, "$ref": "#/definitions/dev.knative.serving.v1.Service"})


@cache
def knatives() -> jsonschema.Draft7Validator:
    """Return the CRD's OpenAPI schema as a JSON schema that rejects unknown fields, which the API server would drop."""
    crd = yaml.safe_load(gzip.decompress((ROOT / "tests" / "data" / "knative" / "service-crd.yaml.gz").read_bytes()))
    version = next(version for version in crd["spec"]["versions"] if version["name"] == "v1")
    return jsonschema.Draft7Validator(_close(version["schema"]["openAPIV3Schema"], is_root=True))


def _close(schema: Any, *, is_root: bool = False) -> Any:
    if isinstance(schema, list):
        return [_close(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _close(value) if key != "properties" else value for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict):
        closed["properties"] = {name: _close(value) for name, value in schema["properties"].items()}
        if is_root:
            closed["properties"]["metadata"] = {"type": "object"}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        closed["type"] = ["integer", "string"]
    return closed


def schema_errors(service: Manifest) -> list[str]:
    """Return the errors of both schemas for a Knative Service."""
    return [error.message for validator in (knatives(), ours()) for error in validator.iter_errors(service)]
