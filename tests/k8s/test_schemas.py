"""The manifests pass the schemas that an API server applies: Kubernetes' own, and for Knative the CRD's and ours."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest

from testing.k8s.manifests import ALL, KNATIVE, OVERLAYS, Manifest, find_service, render
from testing.k8s.schemas import OUR_SCHEMA, knatives, ours, schema_errors

KUBERNETES = "1.34"  # the minimum for Knative 1.22
SERVICES = [
    (overlay, manifest["metadata"]["name"])
    for overlay in OVERLAYS
    for manifest in render(f"overlays/{overlay}")
    if manifest["apiVersion"] == KNATIVE
]
# These kinds are not in kubernetes-validate; test_monitoring.py and test_keda.py check them.
FOREIGN = {"monitoring.coreos.com/v1", "http.keda.sh/v1beta1", "keda.sh/v1alpha1"}


@pytest.mark.parametrize("folder", ALL)
def test_every_kubernetes_object_is_valid_strictly(folder: str) -> None:
    checked = [m for m in render(folder) if m["apiVersion"] != KNATIVE and m["apiVersion"] not in FOREIGN]
    assert checked or folder == "overlays/cloud-run"
    for manifest in checked:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize(("overlay", "name"), SERVICES)
def test_knative_services_fit_both_schemas(overlay: str, name: str) -> None:
    assert schema_errors(find_service(f"overlays/{overlay}", name)) == []


def _spoil(path: str, value: Any) -> Callable[[Manifest], None]:
    def change(manifest: Manifest) -> None:
        *parents, last = path.split("/")
        at: Any = manifest
        for key in parents:
            at = at[int(key)] if isinstance(at, list) else at[key]
        at[last] = value

    return change


SPEC, CONTAINER = "spec/template/spec", "spec/template/spec/containers/0"
WRONG = {
    "misspelt concurrency": _spoil(f"{SPEC}/containerConcurency", 2),
    "concurrency in words": _spoil(f"{SPEC}/containerConcurrency", "two"),
    "misspelt probe": _spoil(f"{CONTAINER}/readynessProbe", {}),
    "time-out as text": _spoil(f"{SPEC}/timeoutSeconds", "120"),
    "annotation as a number": _spoil("spec/template/metadata/annotations/autoscaling.knative.dev~min-scale", 1),
    "root of the file system misspelt": _spoil(f"{CONTAINER}/securityContext/readOnlyRootFileSystem", True),
    "a mount without a path": _spoil(f"{CONTAINER}/volumeMounts", [{"name": "shm"}]),
    "no template": _spoil("spec", {"containers": []}),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_knative_service_fits_neither_schema(fault: str) -> None:
    service = copy.deepcopy(find_service("overlays/gpu", "backend"))
    WRONG[fault](service)
    assert list(ours().iter_errors(service)), f"ours lets pass: {fault}"
    assert list(knatives().iter_errors(service)), f"Knative's lets pass: {fault}"


def test_our_schema_is_a_subset_of_knatives() -> None:
    """Every property of our schema exists in the CRD, at the same path and with the same type."""
    crd = knatives().schema["properties"]["spec"]["properties"]["template"]["properties"]["spec"]
    definitions = OUR_SCHEMA["definitions"]

    def resolve(schema: Any) -> Any:
        return definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema

    def compare(own: Any, theirs: Any, path: str) -> None:
        own = resolve(own)
        if theirs.get("x-kubernetes-preserve-unknown-fields"):  # complete, checked by Kubernetes' schema
            return
        kinds = theirs.get("type", [])
        if "type" in own and own["type"] != "object":
            assert own["type"] in ([kinds] if isinstance(kinds, str) else kinds), (
                f"{path}: {own['type']} against {kinds}"
            )
        for name, inner in own.get("properties", {}).items():
            assert name in theirs.get("properties", {}), f"{path}/{name} is not in Knative's CRD"
            compare(inner, theirs["properties"][name], f"{path}/{name}")
        if "items" in own:
            compare(own["items"], theirs["items"], f"{path}[]")

    compare(definitions["revisionSpec"], crd, "spec.template.spec")


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", "spec/template/spec/containers/0/securityContext/readOnlyRootFileSystem", True),
        ("Deployment", "spec/replicas", "one"),
        ("NetworkPolicy", "spec/policyType", ["Ingress"]),
    ],
)
def test_wrong_kubernetes_object_is_rejected(kind: str, path: str, value: Any) -> None:
    manifest = copy.deepcopy(next(m for m in render("overlays/replicas") if m["kind"] == kind))
    _spoil(path, value)(manifest)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
