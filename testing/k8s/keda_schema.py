"""Strict schemas of KEDA's objects, of the fields that its HTTP add-on has since 0.15 and that this project may use.

Written from the reference of InterceptorRoute (0.15 to 1.0) and of ScaledObject (2.17). Unknown fields are rejected.
"""

from __future__ import annotations

from typing import Any

import jsonschema

from testing.k8s.manifests import Manifest

DURATION = {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
NAME = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 1}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _target() -> dict[str, Any]:
    either = [{"required": ["port"]}, {"required": ["portName"]}]
    return {**_object(("service",), service=NAME, port=PORT, portName=NAME), "oneOf": either}


_METRIC = _object(
    concurrency=_object(("targetValue",), targetValue=COUNT),
    requestRate=_object(("targetValue",), targetValue=COUNT, window=DURATION, granularity=DURATION),
)
_RULE = _object(
    hosts={"type": "array", "items": NAME, "uniqueItems": True},
    paths={"type": "array", "items": _object(("value",), value=NAME)},
    headers={"type": "array", "items": _object(("name",), name=NAME, value={"type": "string"})},
)
_ROUTE = _object(
    ("target", "scalingMetric"),
    target=_target(),
    rules={"type": "array", "items": _RULE},
    scalingMetric={**_METRIC, "minProperties": 1},
    timeouts=_object(request=DURATION, readiness=DURATION, responseHeader=DURATION),
)
_SCALED = _object(
    ("scaleTargetRef", "triggers"),
    scaleTargetRef=_object(("name",), name=NAME, kind=NAME, apiVersion=NAME),
    pollingInterval=COUNT,
    cooldownPeriod={"type": "integer", "minimum": 0},
    initialCooldownPeriod={"type": "integer", "minimum": 0},
    minReplicaCount={"type": "integer", "minimum": 0},
    maxReplicaCount=COUNT,
    triggers={
        "type": "array",
        "minItems": 1,
        "items": _object(
            ("type", "metadata"),
            type={"const": "external-push"},
            metadata=_object(("scalerAddress", "interceptorRoute"), scalerAddress=NAME, interceptorRoute=NAME),
        ),
    },
)
_METADATA = _object(
    ("name", "namespace"), name=NAME, namespace=NAME, labels={"type": "object", "additionalProperties": NAME}
)


def _kind(api_version: str, spec: dict[str, Any]) -> dict[str, Any]:
    fields = {"apiVersion": {"const": api_version}, "kind": NAME, "metadata": _METADATA, "spec": spec}
    return _object(tuple(fields), **fields)


SCHEMAS = {
    "InterceptorRoute": _kind("http.keda.sh/v1beta1", _ROUTE),
    "ScaledObject": _kind("keda.sh/v1alpha1", _SCALED),
}


def keda_errors(manifest: Manifest) -> list[str]:
    """Return the errors of one of KEDA's objects."""
    validator = jsonschema.Draft7Validator(SCHEMAS[manifest["kind"]])
    return [error.message for error in validator.iter_errors(manifest)]
