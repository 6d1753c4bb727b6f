"""The component that mounts an image with weights: its objects, what it needs of a cluster, and how it is pinned."""

from __future__ import annotations

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from gateway.config.environment import read_settings
from gateway.preflight.check_result import CheckResult
from gateway.preflight.image_volumes import image_volumes
from gateway.preflight.kubectl import Manifest
from gateway.preflight.overlay import Overlay
from swinir.weights import lockfile
from testing.data import ROOT
from testing.k8s.knative_admission import complain
from testing.k8s.manifests import K8S, KNATIVE, environment, render_with, revision
from testing.k8s.schemas import schema_errors

COMPONENT = K8S / "components" / "weights"
FLAG = "kubernetes.podspec-volumes-image"
FOLDER = "/opt/superres/weights"
KUBERNETES = "1.36"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    return render_with(tmp_path_factory.mktemp("mine"), components=("gpu", "images", "weights"))


@pytest.fixture
def services(rendered: list[Manifest]) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: copy.deepcopy(each) for each in rendered if each["apiVersion"] == KNATIVE}


@pytest.mark.parametrize("name", ["backend", "gateway"])
def test_triton_and_the_gateway_read_the_same_weights(services: dict[str, Manifest], name: str) -> None:
    (container,) = revision(services[name])["containers"]
    (volume,) = [each for each in revision(services[name])["volumes"] if each["name"] == "weights"]
    assert volume["image"]["pullPolicy"] == "IfNotPresent"
    assert {"name": "weights", "mountPath": FOLDER, "readOnly": True} in container["volumeMounts"]
    assert environment(services[name])["SUPERRES_WEIGHTS_DIR"] == FOLDER
    assert f"SUPERRES_WEIGHTS_DIR={FOLDER}" in (ROOT / "docker" / "triton.Dockerfile").read_text()


def test_gateway_accepts_the_folder(services: dict[str, Manifest]) -> None:
    known = environment(services["gateway"])["SUPERRES_WEIGHTS_DIR"]
    assert str(read_settings({"SUPERRES_WEIGHTS_DIR": known}).settings.weights_dir) == FOLDER


@pytest.mark.parametrize("name", ["backend", "gateway"])
def test_services_fit_schemas_and_knative_admits_them_with_the_flag(services: dict[str, Manifest], name: str) -> None:
    service = services[name]
    (container,) = revision(service)["containers"]
    mounted = {key: container[key] for key in ("name", "image", "volumeMounts")}
    spec = {"containers": [mounted], "volumes": revision(service)["volumes"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)  # Knative's schema has nothing on volumes from images
    assert schema_errors(service) == []
    assert complain(service, frozenset({FLAG})) == []
    (complaint,) = complain(service)
    assert complaint.endswith(f"it needs {FLAG} in config-features")

    revision(service)["containers"][0]["volumeMounts"][-1].pop("readOnly")
    assert any("readOnly" in line for line in complain(service, frozenset({FLAG})))
    del revision(service)["volumes"][-1]["image"]["reference"]
    assert schema_errors(service) != []


def test_http_service_of_triton_has_the_weights_too(tmp_path: Path) -> None:
    rendered = render_with(tmp_path, components=("triton-http", "images", "weights"))
    (service,) = [each for each in rendered if each["metadata"]["name"] == "backend-http"]
    assert "image" in revision(service)["volumes"][-1]


class NodesOnly:
    """A cluster of this version, with nodes of these container runtimes."""

    def __init__(self, minor: str, runtimes: tuple[str, ...]) -> None:
        self.minor, self.runtimes = minor, runtimes

    def read(self, *path: str) -> Manifest | None:
        return {"major": "1", "minor": self.minor} if path == ("version",) else None

    def read_items(self, *_: str) -> list[Manifest]:
        return [
            {"metadata": {"name": f"node-{number}"}, "status": {"nodeInfo": {"containerRuntimeVersion": runtime}}}
            for number, runtime in enumerate(self.runtimes)
        ]


def check(rendered: list[Manifest], minor: str, *runtimes: str) -> list[CheckResult]:
    return list(image_volumes(Overlay(rendered), NodesOnly(minor, runtimes)))


def test_preflight_asks_for_the_flag_and_names_the_placeholder(rendered: list[Manifest]) -> None:
    overlay = Overlay(rendered)
    assert overlay.flags() == {FLAG: ["backend: volume weights", "gateway: volume weights"]}
    assert f"registry.example.com/superres-weights@sha256:{'0' * 64}" in overlay.images()


def test_cluster_that_mounts_images_is_ok(rendered: list[Manifest]) -> None:
    found = check(rendered, "36+", "containerd://2.1.0", "containerd://2.3.1", "cri-o://1.31.0", "cri-o://1.36.2")
    assert [finding.level for finding in found] == ["ok"]
    assert check([], "34", "containerd://1.7.0") == [], "without such a volume nothing is asked for"


@pytest.mark.parametrize(
    ("minor", "runtime", "level", "text"),
    [
        ("34", "containerd://2.1.0", "error", "Kubernetes, for volumes from images, 1.34 is older than 1.35"),
        ("36", "containerd://2.0.5", "warning", "may not start on node-0 (containerd://2.0.5): containerd 2.1"),
        ("36", "cri-o://1.30.9", "warning", "node-0 (cri-o://1.30.9)"),
        ("36", "docker://27.0.0", "warning", "node-0 (docker://27.0.0)"),
        ("36", "", "warning", "node-0 (unknown)"),
    ],
)
def test_what_cannot_mount_images_is_named(
    rendered: list[Manifest], minor: str, runtime: str, level: str, text: str
) -> None:
    (finding,) = [each for each in check(rendered, minor, runtime) if each.level != "ok"]
    assert (finding.level, text in finding.text) == (level, True), finding
    assert finding.remedy


def test_many_old_nodes_are_counted(rendered: list[Manifest]) -> None:
    (_, finding) = check(rendered, "36", *["containerd://1.7.0"] * 7)
    assert "node-4 (containerd://1.7.0) and 2 more:" in finding.text


def test_recipe_copies_the_weights_and_their_hashes_only() -> None:
    lines = (COMPONENT / "Dockerfile").read_text().splitlines()
    steps = [line for line in lines if line and not line.startswith("#")]
    assert steps == ["FROM scratch", f"COPY --chmod=0444 *.safetensors {lockfile.NAME} /"]


@pytest.mark.parametrize("with_weights", [False, True])
def test_pin_writes_the_reference_of_the_weights_if_it_is_given(tmp_path: Path, *, with_weights: bool) -> None:
    references = [f"r.io:5000/{name}@sha256:{digit * 64}" for name, digit in (("t", "1"), ("g", "2"), ("w", "3"))]
    folder = tmp_path / "mine"
    render_with(folder, components=())  # a copy of k8s/
    subprocess.run([folder / "k8s" / "pin", *references[: 3 if with_weights else 2]], check=True)

    pinned = (folder / "k8s" / "components" / "weights" / "kustomization.yaml").read_text()
    placeholder = f"registry.example.com/superres-weights@sha256:{'0' * 64}"
    assert references_in(yaml.safe_load(pinned)) == [references[2] if with_weights else placeholder]
    assert pinned.splitlines()[0] == (COMPONENT / "kustomization.yaml").read_text().splitlines()[0], "comments stay"
    images = yaml.safe_load((folder / "k8s" / "components" / "images" / "kustomization.yaml").read_text())["images"]
    assert [f"{each['newName']}@{each['digest']}" for each in images] == references[:2]


def references_in(component: Any) -> list[str]:
    return [found for patch in component["patches"] for found in re.findall(r"reference: (\S+)", patch["patch"])]


def test_pin_refuses_weights_without_a_digest(tmp_path: Path) -> None:
    good = "r.io/g@sha256:" + "a" * 64
    render_with(tmp_path, components=())
    done = subprocess.run(
        [tmp_path / "k8s" / "pin", good, good, "r.io/w:latest"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "r.io/w:latest" in done.stderr
    assert (tmp_path / "k8s" / "components" / "weights" / "kustomization.yaml").read_text() == (
        COMPONENT / "kustomization.yaml"
    ).read_text()
