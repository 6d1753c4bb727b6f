"""Values that must agree between files: the chain of timeouts, existing settings, pinned images, no plain secrets."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config.environment import read_settings
from gateway.config.settings import SETTINGS, Settings
from gateway.server import max_shutdown_s
from testing.data import ROOT
from testing.k8s.knative_admission import complain, duration_s
from testing.k8s.manifests import (
    ALL,
    CLUSTER_OVERLAYS,
    K8S,
    KNATIVE,
    OVERLAYS,
    Manifest,
    environment,
    find_service,
    render,
    render_with,
    revision,
)
from testing.k8s.schemas import schema_errors

TAIL = ("window", "scale-to-zero-pod-retention-period")
DRAIN_S = 30
"""Seconds that a Knative pod waits without requests before SIGTERM (queue-proxy's drain)."""
ALONE_BYTES = 432_000_000
"""Memory of an image so large that it is processed alone (docs/reference/rate-limits.md)."""
PYTHON_BYTES = 150e6
IMAGE = re.compile(r"[a-z0-9][a-z0-9./:_-]*@sha256:[0-9a-f]{64}")


def read_overlay_settings(overlay: str) -> Settings:
    """Return the gateway's settings from the overlay's environment, with secret files in a folder of the test."""
    variables = environment(find_service(f"overlays/{overlay}", "gateway"))
    return read_settings(
        {name: value for name, value in variables.items() if not re.search(r"(KEY|SECRET)_FILE$", name)}
    ).settings


def annotation(service: Manifest, name: str, default: str = "") -> str:
    """Return an autoscaling annotation of a Knative Service's template."""
    annotations: dict[str, str] = service["spec"]["template"]["metadata"]["annotations"]
    return annotations.get(f"autoscaling.knative.dev/{name}", default)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_setting_named_exists_and_is_accepted(overlay: str) -> None:
    known = {row.variable for row in SETTINGS} | {f"{row.variable}_FILE" for row in SETTINGS if row.is_secret}
    variables = environment(find_service(f"overlays/{overlay}", "gateway"))
    assert {name for name in variables if name.startswith("SUPERRES_")} <= known
    assert read_overlay_settings(overlay).host == "0.0.0.0"  # noqa: S104 - a container's own network


def find_shutdown_s(variables: dict[str, str]) -> float:
    """Return the maximum of seconds from SIGTERM to the gateway's end. The image has a drain_s of its own."""
    image = dict(re.findall(r"(SUPERRES_[A-Z_]+)=(\S+)", (ROOT / "docker" / "gateway.Dockerfile").read_text()))
    return max_shutdown_s(float((image | variables)["SUPERRES_DRAIN_S"]))


def broken_links(settings: Settings, gateway: Manifest, backend: Manifest) -> list[str]:
    """Return where the chain of timeouts breaks: the gateway's own deadline must be first, and pods must drain."""
    of_backend_s, of_gateway_s = (revision(each)["timeoutSeconds"] for each in (backend, gateway))
    exit_s = int(environment(backend)["EXIT_TIMEOUT_S"])
    annotations = backend["spec"]["template"]["metadata"]["annotations"]
    progress_s = duration_s(annotations["serving.knative.dev/progress-deadline"]) or 0
    links = {
        "the activator would answer before the gateway": settings.deadline_s < of_backend_s,
        "Knative would cut the visitor off": settings.body_timeout_s + settings.deadline_s < of_gateway_s,
        "SIGKILL would come before Triton's end": DRAIN_S + exit_s + 5
        <= of_backend_s,  # timeoutSeconds is the grace period
        "SIGKILL would come before the gateway's end": DRAIN_S + find_shutdown_s(environment(gateway)) <= of_gateway_s,
        "a boot that requests wait for would count as failed": of_backend_s < progress_s,
        "a slow boot would die at 300 s": all(
            revision(each).get("responseStartTimeoutSeconds", 300)
            >= min(revision(each)["timeoutSeconds"], settings.deadline_s)
            for each in (backend, gateway)
        ),
    }
    return [broken for broken, holds in links.items() if not holds]


@pytest.mark.parametrize("overlay", CLUSTER_OVERLAYS)
def test_timeouts_are_one_ordered_chain(overlay: str) -> None:
    gateway, backend = (find_service(f"overlays/{overlay}", name) for name in ("gateway", "backend"))
    assert broken_links(read_overlay_settings(overlay), gateway, backend) == []


@pytest.mark.parametrize(
    ("name", "field", "value", "words"),
    [
        ("backend", "timeoutSeconds", 110, "the activator would answer"),
        ("backend", "timeoutSeconds", 90, "SIGKILL"),
        ("backend", "timeoutSeconds", 900, "count as failed"),
        ("gateway", "timeoutSeconds", 170, "cut the visitor off"),
        ("gateway", "timeoutSeconds", 77, "before the gateway's end"),
        ("gateway", "responseStartTimeoutSeconds", 60, "die at 300 s"),
    ],
)
def test_chain_out_of_order_is_seen(name: str, field: str, value: int, words: str) -> None:
    services = {each: copy.deepcopy(find_service("overlays/gpu", each)) for each in ("gateway", "backend")}
    revision(services[name])[field] = value
    broken = broken_links(read_overlay_settings("gpu"), services["gateway"], services["backend"])
    assert any(words in line for line in broken), broken


def test_gateway_ends_before_cloud_run_kills_it() -> None:
    """10 s after SIGTERM. Without running images and with a remote backend, closing takes no time."""
    assert float(environment(find_service("overlays/cloud-run", "gateway"))["SUPERRES_DRAIN_S"]) + 3 < 10


@pytest.mark.parametrize("overlay", CLUSTER_OVERLAYS)
def test_backend_concurrency_matches_the_gateways(overlay: str) -> None:
    backend, gateway = (find_service(f"overlays/{overlay}", name) for name in ("backend", "gateway"))
    settings = read_overlay_settings(overlay)
    slots = int(annotation(backend, "max-scale")) * revision(backend)["containerConcurrency"]
    assert settings.max_concurrent_jobs <= slots, "jobs would wait at the activator, where nobody is fair"
    assert settings.max_concurrent_jobs >= slots, "one gateway alone could not wake every pod that max-scale pays for"
    assert revision(gateway)["containerConcurrency"] == 0, "silent clients would take all places, before the gateway"
    tail_s = sum(duration_s(annotation(backend, name)) or 0 for name in TAIL)
    assert settings.scale_to_zero_after_s == tail_s, "asleep is not when it sleeps"
    assert int(annotation(backend, "min-scale")) == 0, "somebody pays while nobody asks"
    assert int(annotation(backend, "max-scale")) >= 1, "without a maximum the cost is unbounded"


@pytest.mark.parametrize("overlay", CLUSTER_OVERLAYS)
def test_gateways_scale_before_a_queue_is_full(overlay: str) -> None:
    gateway, settings = find_service(f"overlays/{overlay}", "gateway"), read_overlay_settings(overlay)
    target = float(annotation(gateway, "target", "100"))  # Knative's default without a limit
    alone = annotation(gateway, "maxScale") == "1"
    assert alone or target < settings.max_concurrent_jobs + settings.queue_size


@pytest.mark.parametrize("overlay", CLUSTER_OVERLAYS)
def test_gateway_memory_suffices_for_its_settings(overlay: str) -> None:
    settings = read_overlay_settings(overlay)
    limit = revision(find_service(f"overlays/{overlay}", "gateway"))["containers"][0]["resources"]["limits"]["memory"]
    kept = settings.results_max_bytes + settings.cache_max_bytes + settings.max_upload_memory_bytes
    needed = kept + max(settings.max_job_memory_bytes, ALONE_BYTES) + PYTHON_BYTES
    assert needed <= int(limit.removesuffix("Gi")) * 2**30


@pytest.mark.parametrize("overlay", CLUSTER_OVERLAYS)
def test_backend_is_cluster_local_and_found_by_the_gateway(overlay: str) -> None:
    backend = find_service(f"overlays/{overlay}", "backend")
    metadata = backend["metadata"]
    assert metadata["labels"]["networking.knative.dev/visibility"] == "cluster-local"
    assert (
        read_overlay_settings(overlay).backend_address
        == f"{metadata['name']}.{metadata['namespace']}.svc.cluster.local:80"
    )
    variables = environment(backend)
    assert variables["GRPC_ADDRESS"] == "127.0.0.1", "the queue-proxy could be bypassed by the pod's address"
    kinds = {manifest["kind"] for manifest in render(f"overlays/{overlay}")}
    assert "DomainMapping" not in kinds


@pytest.mark.parametrize("folder", ALL)
def test_every_image_is_pinned_by_digest(folder: str) -> None:
    images = list(_images(render(folder)))
    assert all(IMAGE.fullmatch(image) for image in images), images
    assert "superres-triton" not in images, "components/images is missing"


def _images(node: Any) -> Any:
    if isinstance(node, dict):
        if isinstance(node.get("image"), str):
            yield node["image"]
        node = list(node.values())
    if isinstance(node, list | tuple):
        for each in node:
            yield from _images(each)


@pytest.mark.parametrize("folder", ALL)
def test_no_secret_stands_in_plain_text(folder: str) -> None:
    assert not [manifest["metadata"]["name"] for manifest in render(folder) if manifest["kind"] == "Secret"]
    for manifest in render(folder):
        for row in _environments(manifest):
            is_secret = re.search(r"(KEY|SECRET|TOKEN|PASSWORD)", row["name"])
            assert not is_secret or row["name"].endswith("_FILE"), f"{row['name']} in {manifest['metadata']['name']}"


def _environments(node: Any) -> Any:
    if isinstance(node, dict):
        yield from node.get("env", []) if isinstance(node.get("env"), list) else []
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from _environments(each)


@pytest.mark.parametrize("folder", ALL)
def test_every_container_of_ours_is_confined(folder: str) -> None:
    for manifest in render(folder):
        spec = manifest.get("spec", {}).get("template", {}).get("spec", {})
        for container in spec.get("containers", []) if folder != "overlays/cloud-run" else []:
            confined = container["securityContext"]
            assert confined["runAsNonRoot"] and confined["runAsUser"] >= 1, container["name"]  # noqa: PT018
            assert confined["readOnlyRootFilesystem"] and not confined["allowPrivilegeEscalation"]  # noqa: PT018
            assert confined["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys(), f"{container['name']} has no limits"
            assert spec["automountServiceAccountToken"] is False


@pytest.mark.parametrize("overlay", CLUSTER_OVERLAYS)
def test_patches_merge_into_containers(overlay: str) -> None:
    """Without the merge keys of knative-service.schema.json, kustomize would replace lists and lose the image."""
    base = yaml.safe_load((K8S / "base" / "gateway" / "service.yaml").read_text())
    assert environment(base).keys() <= environment(find_service(f"overlays/{overlay}", "gateway")).keys()
    mounts = revision(find_service(f"overlays/{overlay}", "gateway"))["containers"][0]["volumeMounts"]
    assert {mount["mountPath"] for mount in mounts} >= {"/tmp", "/etc/superres/keys", "/etc/superres/model-key"}  # noqa: S108


def test_shared_memory_fits_into_the_memory() -> None:
    for overlay in CLUSTER_OVERLAYS:
        spec = revision(find_service(f"overlays/{overlay}", "backend"))
        shm = next(volume for volume in spec["volumes"] if volume["name"] == "shm")["emptyDir"]
        limit = spec["containers"][0]["resources"]["limits"]["memory"]
        assert shm["medium"] == "Memory"
        assert int(shm["sizeLimit"].removesuffix("Gi")) * 3 <= int(limit.removesuffix("Gi"))


@pytest.mark.parametrize(("overlay", "dollars"), [("gpu", 3), ("gpu-node-at-zero", 3), ("replicas", 4 * 10 * 3)])
def test_monthly_budget_is_below_the_overlays_bill(overlay: str, dollars: float) -> None:
    """The bill includes the drain, which the gateway cannot see; with one image per visit it is the largest part
    (docs/how-to/plan-costs.md).
    """
    settings = read_overlay_settings(overlay)
    seen_s = 12 + 3 + settings.scale_to_zero_after_s  # boot, work, tail
    billed_s = settings.monthly_gpu_budget_s * (seen_s + DRAIN_S) / seen_s
    assert 0.9 * dollars < billed_s * 0.00022 <= dollars


def test_http_component_adds_its_own_service(tmp_path: Path) -> None:
    rendered = render_with(tmp_path, components=("triton-http", "gpu", "images"))
    services = {m["metadata"]["name"]: m for m in rendered if m["apiVersion"] == KNATIVE}
    assert services.keys() == {"backend", "backend-http", "gateway"}
    http, grpc = (revision(services[name])["containers"][0] for name in ("backend-http", "backend"))
    assert http.pop("ports") == [{"name": "http1", "containerPort": 8000}]
    assert grpc.pop("ports") == [{"name": "h2c", "containerPort": 8001}]
    assert http == grpc
    assert http["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert services["backend-http"]["metadata"]["labels"]["networking.knative.dev/visibility"] == "cluster-local"
    assert complain(services["backend-http"]) == []
    assert schema_errors(services["backend-http"]) == []


def test_patches_are_short() -> None:
    """The base has what is common, an overlay what differs. A patch of more than 25 lines is a copy."""
    for path in K8S.rglob("*.patch.yaml"):
        assert len(path.read_text().splitlines()) <= 25, path.relative_to(ROOT)
