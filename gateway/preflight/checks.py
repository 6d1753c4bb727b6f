"""Compares what an overlay asks for with what the cluster has. Each check only reads."""

from __future__ import annotations

import re

from gateway.preflight.check_result import Check, CheckResult, CheckResults, parse_version, require_version
from gateway.preflight.image_volumes import image_volumes
from gateway.preflight.keda import ingress_namespace, keda_definitions, keda_interceptor, keda_services
from gateway.preflight.kubectl import ClusterReader, ForbiddenError, Manifest
from gateway.preflight.overlay import PLACEHOLDER_DIGEST, Overlay, gpus, pod_spec

MIN_KUBERNETES = (1, 34)
MIN_KNATIVE = (1, 22)
KNATIVE_NAMESPACE = "knative-serving"
KOURIER_NAMESPACE = "kourier-system"
DEFAULT_MAX_TIMEOUT_S = 600
"""Knative's max-revision-timeout-seconds unless config-defaults sets it."""


def run(overlay: Overlay, cluster: ClusterReader) -> CheckResults:
    """Yield the findings of all checks.

    Raises KubectlError if the cluster cannot be reached. What this user must not read becomes "unknown".
    """
    yield from kubernetes_version(overlay, cluster)
    for check in CHECKS:
        try:
            yield from check(overlay, cluster)
        except ForbiddenError as error:
            yield CheckResult("unknown", f"{check.__name__.replace('_', ' ')}: {error}", "Ask a user who may read it.")


def kubernetes_version(_: Overlay, cluster: ClusterReader) -> CheckResults:
    """Kubernetes is recent enough for Knative, and for the manifests."""
    found = cluster.read("version") or {}
    version = parse_version(f"{found.get('major')}.{found.get('minor')}")
    yield require_version("Kubernetes", version, MIN_KUBERNETES, "Upgrade the cluster.")


def knative_version(overlay: Overlay, cluster: ClusterReader) -> CheckResults:
    """Knative Serving is installed and recent enough."""
    if not overlay.services:
        return
    namespace = cluster.read("api", "v1", "namespaces", KNATIVE_NAMESPACE)
    if namespace is None:
        yield CheckResult(
            "error", f"Knative Serving is not installed: no namespace {KNATIVE_NAMESPACE}", "Install it first."
        )
        return
    label = namespace["metadata"].get("labels", {}).get("app.kubernetes.io/version", "")
    yield require_version("Knative Serving", parse_version(label), MIN_KNATIVE, "Upgrade Knative.")


def feature_flags(overlay: Overlay, cluster: ClusterReader) -> CheckResults:
    """The fields of the pods are allowed; otherwise Knative refuses one Service after others are changed."""
    needed = overlay.flags()
    enabled = _config(cluster, "config-features") if needed else {}
    for flag, fields in sorted(needed.items()):
        if enabled.get(flag, "").lower() in {"enabled", "allowed"}:
            yield CheckResult("ok", f"config-features allows {flag}")
        else:
            yield CheckResult(
                "error",
                f"config-features does not allow {flag} ({', '.join(fields)}); Knative would refuse the Service with "
                '"validation failed: must not set the field(s)"',
                _patch("config-features", flag, "enabled"),
            )


def timeouts(overlay: Overlay, cluster: ClusterReader) -> CheckResults:
    """No timeoutSeconds is above the maximum of the cluster."""
    if not (longest_s := overlay.longest_timeout_s()):
        return
    text = _config(cluster, "config-defaults").get("max-revision-timeout-seconds", "")
    limit_s = int(text) if text.isdigit() else DEFAULT_MAX_TIMEOUT_S
    if longest_s > limit_s:
        remedy = _patch("config-defaults", "max-revision-timeout-seconds", str(longest_s))
        yield CheckResult("error", f"timeoutSeconds {longest_s} is above the cluster's maximum of {limit_s}", remedy)
    else:
        yield CheckResult("ok", f"timeoutSeconds is at most {longest_s}, the cluster allows {limit_s}")


def ingress(overlay: Overlay, cluster: ClusterReader) -> CheckResults:
    """Kourier is the ingress, and passes clients' addresses on."""
    if not overlay.services:
        return
    network = _config(cluster, "config-network")
    ingress_class = network.get("ingress-class") or network.get("ingress.class", "")
    if not ingress_class.startswith("kourier."):
        found = ingress_class or "not set"
        remedy = _patch("config-network", "ingress-class", "kourier.ingress.networking.knative.dev")
        yield CheckResult(
            "error", f"The ingress class is {found}; the network policies are written for Kourier", remedy
        )
        return
    kourier = _config(cluster, "config-kourier")
    if kourier.get("use-remote-address", "").lower() != "true":
        yield CheckResult(
            "error",
            "Kourier does not add the client's address: all clients share one rate limit, and forged ones are believed",
            _patch("config-kourier", "use-remote-address", "true"),
        )
    idle_s, longest_s = _seconds(kourier.get("stream-idle-timeout", "")), overlay.longest_timeout_s()
    if 0 < idle_s < longest_s:
        yield CheckResult(
            "error",
            f"Kourier's stream-idle-timeout of {idle_s} s ends requests before timeoutSeconds {longest_s}",
            _patch("config-kourier", "stream-idle-timeout", "0s"),
        )
    service = cluster.read("api", "v1", "namespaces", KOURIER_NAMESPACE, "services", "kourier")
    spec = service["spec"] if service else {}
    if spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") != "Local":
        yield CheckResult(
            "warning",
            "Kourier's load balancer may hide clients' addresses (externalTrafficPolicy is not Local)",
            f"kubectl -n {KOURIER_NAMESPACE} patch service kourier --type merge "
            '-p \'{"spec":{"externalTrafficPolicy":"Local"}}\'',
        )
    yield CheckResult("ok", "Kourier is the ingress")


def domain(overlay: Overlay, cluster: ClusterReader) -> CheckResults:
    """The gateway gets an address outside the cluster, by HTTPS."""
    if not overlay.services:
        return
    domains = [name for name in _config(cluster, "config-domain") if not name.startswith("_")]
    public = [name for name in domains if name not in {"svc.cluster.local", "example.com"}]
    if public:
        yield CheckResult("ok", f"Domain: {', '.join(sorted(public))}")
    else:
        yield CheckResult(
            "warning",
            "config-domain names no domain: the gateway has no address outside the cluster",
            _patch("config-domain", "YOUR-DOMAIN", ""),
        )
    if _config(cluster, "config-network").get("external-domain-tls", "").lower() != "enabled":
        yield CheckResult(
            "warning",
            "external-domain-tls is not enabled: images and API keys travel unencrypted unless something in front of "
            "Kourier ends TLS",
            "Install cert-manager and a ClusterIssuer, then: "
            + _patch("config-network", "external-domain-tls", "Enabled"),
        )


def namespaces(overlay: Overlay, cluster: ClusterReader) -> CheckResults:
    """Every namespace exists: the overlay's own, since it needs Secrets first, and the shared ones."""
    for name in overlay.namespaces():
        if cluster.read("api", "v1", "namespaces", name) is None:
            created = any(each["metadata"]["name"] == name for each in overlay.kinds("Namespace"))
            remedy = "kubectl apply -f k8s/base/namespace.yaml" if created else "Install the part that belongs there."
            yield CheckResult("error", f"Namespace {name} does not exist", remedy)
        else:
            yield CheckResult("ok", f"Namespace {name}")


def secrets(overlay: Overlay, cluster: ClusterReader) -> CheckResults:
    """Every Secret exists with its entries. Values are neither printed nor kept."""
    for (namespace, name), keys in sorted(overlay.secrets().items()):
        secret = cluster.read("api", "v1", "namespaces", namespace, "secrets", name)
        missing = keys - set((secret or {}).get("data") or {})
        if secret is None:
            remedy = "Create it as step 2 of docs/how-to/deploy-kubernetes.md shows."
            yield CheckResult("error", f"Secret {name} does not exist in {namespace}: its pods would not start", remedy)
        elif missing:
            text = f"Secret {name} in {namespace} has no entry {', '.join(sorted(missing))}"
            yield CheckResult("error", text, "Create it again with that entry.")
        else:
            yield CheckResult("ok", f"Secret {name}")


def images(overlay: Overlay, _: ClusterReader) -> CheckResults:
    """No image has the placeholder's digest."""
    for image in overlay.images():
        if image.endswith(PLACEHOLDER_DIGEST):
            yield CheckResult(
                "error", f"{image} is a placeholder", "Push your images, then run k8s/pin with their digests."
            )
        else:
            yield CheckResult("ok", f"Image {image}")


def gpu_nodes(overlay: Overlay, cluster: ClusterReader) -> CheckResults:
    """Some node has the GPUs that one pod asks for, unless the node pool may be at zero."""
    asking = [each for each in overlay.workloads if gpus(each)]
    nodes = cluster.read_items("api", "v1", "nodes") if asking else []
    for workload in asking:
        name, count, selector = workload["metadata"]["name"], gpus(workload), pod_spec(workload).get("nodeSelector", {})
        fitting = [node for node in nodes if selector.items() <= node["metadata"].get("labels", {}).items()]
        if any(_node_gpus(node) >= count for node in fitting):
            yield CheckResult("ok", f"A node has {count} GPU for {name}")
        elif selector and not fitting:
            labels = ", ".join(f"{key}={value}" for key, value in selector.items())
            yield CheckResult("warning", f"No node has {labels} now; fine if the node pool scales to zero")
        else:
            yield CheckResult(
                "error",
                f"No node has {count} nvidia.com/gpu for {name}",
                "Add a GPU node with NVIDIA's device plugin, or use k8s/overlays/cpu.",
            )


def storage(overlay: Overlay, cluster: ClusterReader) -> CheckResults:
    """A claim without a StorageClass finds a default one."""
    for claim in overlay.kinds("PersistentVolumeClaim"):
        name, namespace = claim["metadata"]["name"], claim["metadata"]["namespace"]
        if "storageClassName" in claim["spec"]:
            continue
        if cluster.read("api", "v1", "namespaces", namespace, "persistentvolumeclaims", name):
            yield CheckResult("ok", f"The volume claim {name} exists")
            continue
        classes = cluster.read_items("apis", "storage.k8s.io", "v1", "storageclasses")
        default = "storageclass.kubernetes.io/is-default-class"
        if any(each["metadata"].get("annotations", {}).get(default) == "true" for each in classes):
            yield CheckResult("ok", f"A default StorageClass serves the volume claim {name}")
        else:
            remedy = "Mark one as the default, or set storageClassName in an overlay of yours."
            yield CheckResult("error", f"No default StorageClass for the volume claim {name}", remedy)


CHECKS: tuple[Check, ...] = (
    knative_version,
    feature_flags,
    image_volumes,
    timeouts,
    ingress,
    domain,
    keda_definitions,
    keda_services,
    keda_interceptor,
    ingress_namespace,
    namespaces,
    secrets,
    images,
    gpu_nodes,
    storage,
)


def _config(cluster: ClusterReader, name: str) -> dict[str, str]:
    """Return the entries of one of Knative's ConfigMaps; empty if it does not exist."""
    config = cluster.read("api", "v1", "namespaces", KNATIVE_NAMESPACE, "configmaps", name) or {}
    return config.get("data") or {}


def _patch(name: str, key: str, value: str) -> str:
    return f'kubectl -n {KNATIVE_NAMESPACE} patch configmap {name} --type merge -p \'{{"data":{{"{key}":"{value}"}}}}\''


def _seconds(duration: str) -> int:
    """Return the seconds of a duration in Go's notation ("10m0s"); 0 for an empty or unknown one."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(h|m|s)(?![a-z])", duration))


def _node_gpus(node: Manifest) -> int:
    return int(node.get("status", {}).get("allocatable", {}).get("nvidia.com/gpu", 0))
