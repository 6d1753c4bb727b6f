"""Checks what volumes from images need: the version of Kubernetes, and of the container runtime on the nodes."""

from __future__ import annotations

from gateway.preflight.check_result import CheckResult, CheckResults, Version, parse_version, require_version
from gateway.preflight.kubectl import ClusterReader
from gateway.preflight.overlay import Overlay

# Kubernetes has the feature since 1.31, switched on by default since 1.35; stable in 1.36.
MIN_KUBERNETES: Version = (1, 35)
# The first versions of the container runtimes with it.
MIN_RUNTIMES: dict[str, Version] = {"containerd": (2, 1), "cri-o": (1, 31)}
MAX_NAMES = 5


def image_volumes(overlay: Overlay, cluster: ClusterReader) -> CheckResults:
    """Kubernetes and the nodes can mount images as volumes."""
    if not overlay.image_volumes():
        return
    found = cluster.read("version") or {}
    version = parse_version(f"{found.get('major')}.{found.get('minor')}")
    name = "Kubernetes, for volumes from images,"
    yield require_version(name, version, MIN_KUBERNETES, "Upgrade it, or build the weights into Triton's image.")
    old = []
    for node in cluster.read_items("api", "v1", "nodes"):
        text = node.get("status", {}).get("nodeInfo", {}).get("containerRuntimeVersion", "")
        runtime, _, number = text.partition("://")
        minimum, version = MIN_RUNTIMES.get(runtime), parse_version(number)
        if minimum is None or version is None or version < minimum:
            old.append(f"{node['metadata'].get('name', '?')} ({text or 'unknown'})")
    if old:
        names = ", ".join(old[:MAX_NAMES]) + (f" and {len(old) - MAX_NAMES} more" if len(old) > MAX_NAMES else "")
        yield CheckResult(
            "warning",
            f"Pods that mount an image may not start on {names}: containerd 2.1 or CRI-O 1.31 is needed",
            "Upgrade these nodes, or keep the pods away from them.",
        )
