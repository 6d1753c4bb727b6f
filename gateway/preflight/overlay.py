"""What the objects of an overlay ask of the cluster."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.preflight.kubectl import Manifest

KNATIVE_GROUP = "serving.knative.dev"
DEFAULT_TIMEOUT_S = 300
"""Knative's own, for a revision that sets none."""
PLACEHOLDER_DIGEST = "@sha256:" + "0" * 64

# Entries of config-features that a stock cluster has switched off, by the field of the pod that needs them.
FLAGS_BY_FIELD = {
    "affinity": "kubernetes.podspec-affinity",
    "dnsConfig": "kubernetes.podspec-dnsconfig",
    "dnsPolicy": "kubernetes.podspec-dnspolicy",
    "initContainers": "kubernetes.podspec-init-containers",
    "nodeSelector": "kubernetes.podspec-nodeselector",
    "priorityClassName": "kubernetes.podspec-priorityclassname",
    "runtimeClassName": "kubernetes.podspec-runtimeclassname",
    "schedulerName": "kubernetes.podspec-schedulername",
    "securityContext": "kubernetes.podspec-securitycontext",
    "tolerations": "kubernetes.podspec-tolerations",
    "topologySpreadConstraints": "kubernetes.podspec-topologyspreadconstraints",
}
FLAGS_BY_VOLUME = {
    "image": "kubernetes.podspec-volumes-image",
    "persistentVolumeClaim": "kubernetes.podspec-persistent-volume-claim",
}


class Overlay:
    """The objects of one overlay."""

    def __init__(self, manifests: list[Manifest]) -> None:
        self.manifests = manifests
        self.services = [each for each in manifests if each["apiVersion"].startswith(f"{KNATIVE_GROUP}/")]
        """The Knative Services."""
        self.workloads = [*self.services, *self.kinds("Deployment")]
        """All objects with a template of a pod."""

    def kinds(self, kind: str) -> list[Manifest]:
        """Return the objects of one kind; "Service" is Kubernetes' own."""
        return [each for each in self.manifests if each["kind"] == kind and each not in self.services]

    def namespaces(self) -> list[str]:
        """Return the namespaces of all objects, each once, sorted."""
        return sorted({each["metadata"].get("namespace", "default") for each in self.manifests if _is_namespaced(each)})

    def flags(self) -> dict[str, list[str]]:
        """Return the entries of config-features that must be enabled, each with the fields that need it."""
        needed: dict[str, list[str]] = {}
        for service in self.services:
            name, spec = service["metadata"]["name"], pod_spec(service)
            for field, flag in FLAGS_BY_FIELD.items():
                if field in spec:
                    needed.setdefault(flag, []).append(f"{name}: {field}")
            for volume in spec.get("volumes", []):
                for field, flag in FLAGS_BY_VOLUME.items():
                    if field in volume:
                        needed.setdefault(flag, []).append(f"{name}: volume {volume['name']}")
        return needed

    def secrets(self) -> dict[tuple[str, str], set[str]]:
        """Return the entries that pods read, by (namespace, name) of the Secret."""
        needed: dict[tuple[str, str], set[str]] = {}
        for workload in self.workloads:
            namespace = workload["metadata"].get("namespace", "default")
            for name, keys in _secret_entries(pod_spec(workload)):
                needed.setdefault((namespace, name), set()).update(keys)
        return needed

    def images(self) -> list[str]:
        """Return the images of all containers and volumes, each once, sorted."""
        containers = (container["image"] for each in self.workloads for container in pod_spec(each)["containers"])
        return sorted({*containers, *self.image_volumes()})

    def image_volumes(self) -> list[str]:
        """Return the images that are mounted as volumes."""
        volumes = (volume for each in self.workloads for volume in pod_spec(each).get("volumes", []))
        return [volume["image"]["reference"] for volume in volumes if "image" in volume]

    def longest_timeout_s(self) -> int:
        """Return the longest timeoutSeconds of all Knative Services."""
        return max((pod_spec(each).get("timeoutSeconds", DEFAULT_TIMEOUT_S) for each in self.services), default=0)


def pod_spec(workload: Manifest) -> Manifest:
    """Return the PodSpec of a workload. That of a Knative Service has Knative's own fields, too."""
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def gpus(workload: Manifest) -> int:
    """Return how many NVIDIA GPUs one pod of a workload asks for."""
    limits = (container.get("resources", {}).get("limits", {}) for container in pod_spec(workload)["containers"])
    return sum(int(each.get("nvidia.com/gpu", 0)) for each in limits)


def _is_namespaced(manifest: Manifest) -> bool:
    return manifest["kind"] not in {"Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}


def _secret_entries(spec: Manifest) -> Iterator[tuple[str, set[str]]]:
    for volume in spec.get("volumes", []):
        if secret := volume.get("secret"):
            yield secret["secretName"], {item["key"] for item in secret.get("items", [])}
    for container in spec["containers"]:
        for row in container.get("env", []):
            if reference := row.get("valueFrom", {}).get("secretKeyRef"):
                yield reference["name"], {reference["key"]}
    for reference in spec.get("imagePullSecrets", []):
        yield reference["name"], {".dockerconfigjson"}
