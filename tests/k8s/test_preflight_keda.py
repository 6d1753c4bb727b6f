"""`superres preflight` for the overlay with KEDA: each thing that it needs is named if it is missing."""

from __future__ import annotations

import copy

import pytest

from gateway.preflight import checks
from gateway.preflight.check_result import CheckResult
from gateway.preflight.overlay import Overlay
from testing.k8s.clusters import (
    DEFINITIONS,
    INTERCEPTOR,
    PROXY,
    SCALER,
    Change,
    Objects,
    StoredCluster,
    ready_cluster,
    with_object,
    without,
)
from testing.k8s.manifests import KEDA_OVERLAY, Manifest, render

SECRETS = "/api/v1/namespaces/superres/secrets"


def run_checks(objects: Objects) -> list[CheckResult]:
    """Return the findings but those about the placeholders of the images."""
    overlay = Overlay(copy.deepcopy(list(render(KEDA_OVERLAY))))
    found = checks.run(overlay, StoredCluster(objects))
    return [finding for finding in found if not finding.text.endswith("is a placeholder")]


def test_cluster_without_knative_lacks_nothing() -> None:
    objects = {
        path: value for path, value in ready_cluster().items() if "knative" not in path and "kourier" not in path
    }
    findings = run_checks(objects)
    assert {finding.level for finding in findings} == {"ok"}
    assert not any("Knative" in finding.text or "Kourier" in finding.text for finding in findings)
    assert sum(finding.text.startswith("Secret ") for finding in findings) == 5
    assert "A node has 1 GPU for backend" in {finding.text for finding in findings}


def interceptor(version: str = "0.15.0", **labels: str) -> Manifest:
    pods = {"app.kubernetes.io/component": "interceptor", "app.kubernetes.io/part-of": "keda-add-ons-http", **labels}
    own = {"app.kubernetes.io/version": version} if version else {}
    return {"metadata": {"labels": own}, "spec": {"template": {"metadata": {"labels": pods}}}}


def unserved(name: str) -> Manifest:
    return {"spec": {"versions": [{"name": name, "served": False}, {"name": "v1alpha0", "served": True}]}}


MISSING = [
    (without(f"{DEFINITIONS}/scaledobjects.keda.sh"), "no CustomResourceDefinition scaledobjects.keda.sh"),
    (without(f"{DEFINITIONS}/interceptorroutes.http.keda.sh"), "InterceptorRoute is unknown"),
    (
        with_object(f"{DEFINITIONS}/interceptorroutes.http.keda.sh", unserved("v1beta1")),
        "interceptorroutes.http.keda.sh is not served in version v1beta1",
    ),
    (without(PROXY), "Service keda-add-ons-http-interceptor-proxy does not exist in keda"),
    (with_object(PROXY, {"spec": {"ports": [{"port": 80}]}}), "interceptor-proxy in keda has no port 8080"),
    (without(SCALER), "Service keda-add-ons-http-external-scaler does not exist in keda"),
    (without(INTERCEPTOR), "Deployment keda-add-ons-http-interceptor does not exist in keda"),
    (with_object(INTERCEPTOR, interceptor("0.14.1")), "KEDA's HTTP add-on 0.14 is older than 0.15"),
    (
        with_object(INTERCEPTOR, interceptor(**{"app.kubernetes.io/part-of": "mine"})),
        "lack the labels app.kubernetes.io/component=interceptor, app.kubernetes.io/part-of=keda-add-ons-http",
    ),
    (without("/api/v1/namespaces/keda"), "Namespace keda does not exist"),
    (without(f"{SECRETS}/model-key"), "Secret model-key does not exist in superres"),
    (with_object("/api/v1/nodes", {"metadata": {}, "items": []}), "No node has 1 nvidia.com/gpu for backend"),
    (with_object("/version", {"major": "1", "minor": "33"}), "Kubernetes 1.33 is older than 1.34"),
]


@pytest.mark.parametrize(("change", "text"), MISSING, ids=[text for _, text in MISSING])
def test_what_is_missing_is_named_with_its_remedy(change: Change, text: str) -> None:
    objects = ready_cluster()
    change(objects)

    errors = [finding for finding in run_checks(objects) if finding.level == "error"]

    assert any(text in finding.text for finding in errors), errors
    assert all(finding.remedy for finding in errors)


@pytest.mark.parametrize(
    ("change", "level", "text"),
    [
        (with_object("/api/v1/namespaces", {"metadata": {}, "items": []}), "warning", "No namespace has the label"),
        (with_object(INTERCEPTOR, interceptor("")), "unknown", "The version of KEDA's HTTP add-on"),
    ],
)
def test_what_may_be_intended_or_cannot_be_known_is_no_error(change: Change, level: str, text: str) -> None:
    objects = ready_cluster()
    change(objects)

    (finding,) = [finding for finding in run_checks(objects) if finding.level != "ok"]

    assert finding.level == level
    assert text in finding.text
    assert finding.remedy
