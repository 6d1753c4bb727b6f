"""Checks what an overlay with KEDA's HTTP add-on needs: its objects, its Services, its version, and an ingress."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.preflight.check_result import CheckResult, CheckResults, Version, parse_version, require_version
from gateway.preflight.kubectl import ClusterReader, Manifest
from gateway.preflight.overlay import Overlay

DEFINITIONS = {"ScaledObject": "scaledobjects.keda.sh", "InterceptorRoute": "interceptorroutes.http.keda.sh"}
INTERCEPTOR = "keda-add-ons-http-interceptor"
# The first version that passes HTTP/2 on, which gRPC needs.
MIN_ADD_ON: Version = (0, 15)
NAMESPACE_NAME = "kubernetes.io/metadata.name"
INSTALL = "Install KEDA and its HTTP add-on (docs/how-to/deploy-kubernetes-keda.md)."


def keda_definitions(overlay: Overlay, cluster: ClusterReader) -> CheckResults:
    """KEDA and its HTTP add-on serve the versions of the objects that the overlay has."""
    for kind, name in DEFINITIONS.items():
        for wanted in sorted({each["apiVersion"].rpartition("/")[2] for each in overlay.kinds(kind)}):
            found = cluster.read("apis", "apiextensions.k8s.io", "v1", "customresourcedefinitions", name)
            versions = found["spec"]["versions"] if found else []
            if found is None:
                yield CheckResult("error", f"{kind} is unknown: no CustomResourceDefinition {name}", INSTALL)
            elif wanted not in {version["name"] for version in versions if version.get("served")}:
                yield CheckResult("error", f"{name} is not served in version {wanted}", "Upgrade KEDA's HTTP add-on.")
            else:
                yield CheckResult("ok", f"{kind} {wanted}")


def keda_services(overlay: Overlay, cluster: ClusterReader) -> CheckResults:
    """The Services of the HTTP add-on have the names and ports that the overlay uses."""
    for name, namespace, port in sorted(_addresses(overlay)):
        service = cluster.read("api", "v1", "namespaces", namespace, "services", name)
        if service is None:
            yield CheckResult("error", f"Service {name} does not exist in {namespace}", INSTALL)
        elif port not in {each["port"] for each in service["spec"]["ports"]}:
            text = f"Service {name} in {namespace} has no port {port}"
            yield CheckResult("error", text, "Set that port where you install the HTTP add-on, or patch the overlay.")
        else:
            yield CheckResult("ok", f"Service {name} in {namespace}")


def keda_interceptor(overlay: Overlay, cluster: ClusterReader) -> CheckResults:
    """The interceptor passes gRPC on, and its pods have the labels that the network policies select."""
    for policy in overlay.kinds("NetworkPolicy"):
        namespace = policy["metadata"].get("namespace", "default")
        selector = policy["spec"]["podSelector"].get("matchLabels", {})
        if not overlay.kinds("InterceptorRoute") or selector.get("app.kubernetes.io/component") != "interceptor":
            continue
        deployment = cluster.read("apis", "apps", "v1", "namespaces", namespace, "deployments", INTERCEPTOR)
        if deployment is None:
            yield CheckResult("error", f"Deployment {INTERCEPTOR} does not exist in {namespace}", INSTALL)
            continue
        label = deployment["metadata"].get("labels", {}).get("app.kubernetes.io/version", "")
        yield require_version("KEDA's HTTP add-on", parse_version(label), MIN_ADD_ON, "Upgrade it: gRPC needs it.")
        labels = deployment["spec"]["template"]["metadata"].get("labels", {})
        if not selector.items() <= labels.items():
            wanted = ", ".join(f"{key}={value}" for key, value in sorted(selector.items()))
            text = f"The interceptor's pods lack the labels {wanted}: the network policies would not admit them"
            yield CheckResult("error", text, "Change the selectors in an overlay of yours.")


def ingress_namespace(overlay: Overlay, cluster: ClusterReader) -> CheckResults:
    """Some namespace has the label with which an operator admits an ingress controller."""
    for labels in _namespace_labels(overlay):
        text = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        namespaces = cluster.read_items("api", "v1", "namespaces")
        names = [each["metadata"]["name"] for each in namespaces if _has(each, labels)]
        if names:
            yield CheckResult("ok", f"The gateway admits the namespace {', '.join(sorted(names))}")
        else:
            yield CheckResult(
                "warning",
                f"No namespace has the label {text}: no ingress controller reaches the gateway",
                f"kubectl label namespace YOUR-INGRESS-NAMESPACE {text}",
            )


def _addresses(overlay: Overlay) -> Iterator[tuple[str, str, int]]:
    """Yield name, namespace and port of each Service of the add-on."""
    if not overlay.kinds("InterceptorRoute"):
        return
    for service in overlay.kinds("Service"):
        if match := re.fullmatch(r"([^.]+)\.([^.]+)\.svc\..+", service["spec"].get("externalName", "")):
            yield from ((match[1], match[2], port["port"]) for port in service["spec"]["ports"])
    for scaled in overlay.kinds("ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            if match := re.fullmatch(r"([^.:]+)\.([^.:]+)[^:]*:(\d+)", trigger["metadata"].get("scalerAddress", "")):
                yield match[1], match[2], int(match[3])


def _namespace_labels(overlay: Overlay) -> Iterator[dict[str, str]]:
    """Yield the labels of namespaces that policies select by anything but their names."""
    for policy in overlay.kinds("NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            for peer in rule.get("from", []):
                labels = peer.get("namespaceSelector", {}).get("matchLabels", {})
                if labels.keys() - {NAMESPACE_NAME}:
                    yield labels


def _has(namespace: Manifest, labels: dict[str, str]) -> bool:
    return labels.items() <= namespace["metadata"].get("labels", {}).items()
