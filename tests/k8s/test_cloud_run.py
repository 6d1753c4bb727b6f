"""The overlay for Cloud Run: the fields that Google accepts, and the connection to the backend."""

from __future__ import annotations

import re

import yaml

from testing.k8s.manifests import K8S, Manifest, environment, find_service

CLOUD_RUN = "overlays/cloud-run"
# Google's rule for labels on Cloud Run (cloud.google.com/run/docs/configuring/services/labels).
KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
VALUE = re.compile(r"[a-z0-9_-]{0,63}")


def refused_labels(service: Manifest) -> list[str]:
    labels = [
        *service["metadata"].get("labels", {}).items(),
        *service["spec"]["template"]["metadata"].get("labels", {}).items(),
    ]
    return [f"{key}={value}" for key, value in labels if not (KEY.fullmatch(key) and VALUE.fullmatch(value))]


def test_google_takes_every_label() -> None:
    assert refused_labels(find_service(CLOUD_RUN, "gateway")) == []


def test_google_would_refuse_those_of_the_base() -> None:
    """The counter-example, which is why the overlay has patches."""
    base = yaml.safe_load((K8S / "base" / "gateway" / "service.yaml").read_text())
    assert refused_labels(base) == ["app.kubernetes.io/component=gateway"] * 2


def test_backend_has_the_name_that_kourier_routes() -> None:
    address = environment(find_service(CLOUD_RUN, "gateway"))["SUPERRES_BACKEND_ADDRESS"]
    metadata = find_service("overlays/gpu", "backend")["metadata"]
    assert address == f"{metadata['name']}.{metadata['namespace']}.svc.cluster.local:80"


def test_cloud_run_has_vpc_access_and_no_cluster_fields() -> None:
    service = find_service(CLOUD_RUN, "gateway")
    annotations = service["spec"]["template"]["metadata"]["annotations"]
    assert annotations["run.googleapis.com/vpc-access-connector"]
    assert "namespace" not in service["metadata"]
    assert not any("securityContext" in container for container in service["spec"]["template"]["spec"]["containers"])
