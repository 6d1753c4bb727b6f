"""`superres preflight`: each check on stored objects, and the command with the real kubectl and a stand-in server."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.main import cli
from gateway.preflight import checks
from gateway.preflight.check_result import CheckResult
from gateway.preflight.overlay import FLAGS_BY_FIELD, FLAGS_BY_VOLUME, Overlay
from testing.k8s.api_server import serve_api, write_kubeconfig
from testing.k8s.clusters import (
    CONFIG,
    FLAG_ENTRIES,
    KNATIVE,
    Change,
    Objects,
    StoredCluster,
    ready_cluster,
    with_data,
    with_object,
    without,
)
from testing.k8s.knative_admission import FLAGS, VOLUME_FLAGS
from testing.k8s.manifests import CLUSTER_OVERLAYS, K8S, find_kubectl, render


def run_checks(overlay: str, objects: Objects) -> list[CheckResult]:
    """Return the findings but those about the placeholders of the images."""
    manifests = copy.deepcopy(list(render(f"overlays/{overlay}")))
    found = checks.run(Overlay(manifests), StoredCluster(objects))
    return [finding for finding in found if not finding.text.endswith("is a placeholder")]


@pytest.fixture
def pinned(tmp_path: Path) -> Path:
    """Return a copy of k8s/ with images of an operator."""
    folder = shutil.copytree(K8S, tmp_path / "k8s")
    images = folder / "components" / "images" / "kustomization.yaml"
    images.write_text(images.read_text().replace("sha256:" + "0" * 64, "sha256:" + "1" * 64))
    return folder


@pytest.fixture
def preflight(tmp_path: Path, pinned: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("PATH", str(Path(find_kubectl()).parent), prepend=":")

    def run(objects: Objects, overlay: str = "gpu", forbidden: set[str] = frozenset(), folder: Path = pinned) -> Result:  # type: ignore[assignment]
        with serve_api(objects, set(forbidden)) as server:
            monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "kubeconfig", server.server_port)))
            result = CliRunner().invoke(cli, ["preflight", str(folder / "overlays" / overlay)])
            assert set(server.methods) <= {"GET"}
        return result

    return run


@pytest.mark.parametrize("overlay", [*CLUSTER_OVERLAYS, "keda"])
def test_ready_cluster_lacks_nothing(overlay: str) -> None:
    assert {finding.level for finding in run_checks(overlay, ready_cluster())} == {"ok"}


def test_command_reads_the_cluster_by_kubectl_and_prints_no_secret(preflight: Callable[..., Result]) -> None:
    result = preflight(ready_cluster(), "gpu-node-at-zero")

    assert result.exit_code == 0, result.output
    assert {line.split()[0] for line in result.output.splitlines() if line} == {"ok", "Nothing"}
    assert "Next: kubectl apply -k" in result.output
    assert "c2VjcmV0" not in result.output
    assert "secret-value" not in result.output


MISSING = [
    ("gpu", with_object("/version", {"major": "1", "minor": "33"}), "Kubernetes 1.33 is older than 1.34"),
    ("gpu", without(KNATIVE), "Knative Serving is not installed"),
    ("gpu", with_object(KNATIVE, {"metadata": {"labels": {"app.kubernetes.io/version": "v1.21.2"}}}), "1.21 is older"),
    (
        "gpu-node-at-zero",
        with_data("config-features"),
        "does not allow kubernetes.podspec-nodeselector (backend: nodeS",
    ),
    ("gpu-node-at-zero", without(f"{CONFIG}/config-features"), "does not allow kubernetes.podspec-tolerations"),
    (
        "gpu-node-at-zero",
        with_data("config-defaults", **{"max-revision-timeout-seconds": "300"}),
        "timeoutSeconds 600 is above the cluster's maximum of 300",
    ),
    (
        "gpu-node-at-zero",
        with_data("config-kourier", **{"use-remote-address": "true", "stream-idle-timeout": "5m"}),
        "stream-idle-timeout of 300 s ends requests before timeoutSeconds 600",
    ),
    (
        "gpu",
        with_data("config-network", **{"ingress-class": "istio.ingress.networking.knative.dev"}),
        "is istio.ingress",
    ),
    ("gpu", without(f"{CONFIG}/config-kourier"), "all clients share one rate limit"),
    ("gpu", without("/api/v1/namespaces/superres"), "Namespace superres does not exist"),
    ("gpu", without("/api/v1/namespaces/kourier-system"), "Namespace kourier-system does not exist"),
    ("gpu", without("/api/v1/namespaces/superres/secrets/model-key"), "Secret model-key does not exist in superres"),
    (
        "gpu",
        with_object("/api/v1/namespaces/superres/secrets/api-key", {"data": {"api_key": ""}}),
        "Secret api-key in superres has no entry latest",
    ),
    ("gpu", with_object("/api/v1/nodes", {"metadata": {}, "items": []}), "No node has 1 nvidia.com/gpu for backend"),
    (
        "gpu",
        with_object("/apis/storage.k8s.io/v1/storageclasses", {"metadata": {}, "items": [{"metadata": {}}]}),
        "No default StorageClass for the volume claim redis",
    ),
]


@pytest.mark.parametrize(("overlay", "change", "text"), MISSING, ids=[text for _, _, text in MISSING])
def test_what_is_missing_is_named_with_its_remedy(overlay: str, change: Change, text: str) -> None:
    objects = ready_cluster()
    change(objects)

    errors = [finding for finding in run_checks(overlay, objects) if finding.level == "error"]

    assert any(text in finding.text for finding in errors), errors
    assert all(finding.remedy for finding in errors)


@pytest.mark.parametrize(
    ("overlay", "change", "text"),
    [
        ("gpu", with_data("config-domain", **{"svc.cluster.local": ""}), "no address outside the cluster"),
        (
            "gpu",
            with_data("config-network", **{"ingress.class": "kourier.ingress.networking.knative.dev"}),
            "external-domain-tls is not enabled",
        ),
        (
            "gpu",
            with_object("/api/v1/namespaces/kourier-system/services/kourier", {"spec": {"type": "LoadBalancer"}}),
            "externalTrafficPolicy is not Local",
        ),
        (
            "gpu-node-at-zero",
            with_object("/api/v1/nodes", {"metadata": {}, "items": [{"metadata": {"labels": {}}}]}),
            "No node has nvidia.com/gpu.present=true now",
        ),
    ],
)
def test_what_may_be_intended_is_a_warning(overlay: str, change: Change, text: str) -> None:
    objects = ready_cluster()
    change(objects)

    findings = [finding for finding in run_checks(overlay, objects) if finding.level != "ok"]

    assert [finding.level for finding in findings] == ["warning"]
    assert text in findings[0].text


def test_placeholder_of_an_image_is_named(preflight: Callable[..., Result]) -> None:
    result = preflight(ready_cluster(), folder=K8S)
    assert result.exit_code == 3
    assert result.output.count("is a placeholder") == 2
    assert "-> Push your images" in result.output
    assert result.output.rstrip().endswith("2 missing. Nothing was changed.")


def test_what_must_not_be_read_is_unknown_and_the_rest_is_checked(preflight: Callable[..., Result]) -> None:
    objects = ready_cluster()
    del objects["/apis/storage.k8s.io/v1/storageclasses"]
    result = preflight(objects, forbidden={"/api/v1/namespaces/superres/secrets/api-key"})
    assert [line.split()[0] for line in result.output.splitlines() if "forbidden" in line] == ["unknown"]
    assert "No default StorageClass" in result.output, "checks after the forbidden one still run"


@pytest.mark.usefixtures("preflight")
def test_cluster_that_does_not_respond_is_an_error_with_kubectls_reason(
    tmp_path: Path, pinned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_api({}, set()) as server:
        kubeconfig = write_kubeconfig(tmp_path / "gone", server.server_port)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    result = CliRunner().invoke(cli, ["preflight", str(pinned / "overlays" / "gpu")])
    assert result.exit_code == 1
    assert result.output.startswith("superres: kubectl get: ")
    assert "refused" in result.output


@pytest.mark.usefixtures("preflight")
def test_folder_without_a_kustomization_is_an_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["preflight", str(tmp_path)])
    assert result.exit_code == 1
    assert "kubectl kustomize" in result.output


def test_without_kubectl_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(cli, ["preflight", str(K8S / "overlays" / "gpu")])
    assert result.exit_code == 1
    assert "kubectl was not found" in result.output


def test_flags_are_those_of_the_admission_rules() -> None:
    assert FLAGS_BY_FIELD == FLAGS
    assert FLAGS_BY_VOLUME == VOLUME_FLAGS
    overlay = Overlay(copy.deepcopy(list(render("overlays/gpu-node-at-zero"))))
    assert sorted(overlay.flags()) == sorted(FLAG_ENTRIES)
