"""Clusters for tests of `superres preflight`: stored objects by API path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.preflight.kubectl import Manifest

KNATIVE = "/api/v1/namespaces/knative-serving"
CONFIG = f"{KNATIVE}/configmaps"
SECRETS = ("api-key", "form-secret", "gateway-blocks", "gateway-keys", "model-key")
FLAG_ENTRIES = {"kubernetes.podspec-nodeselector": "enabled", "kubernetes.podspec-tolerations": "allowed"}
GPU_LABEL = {"nvidia.com/gpu.present": "true"}

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PROXY = "/api/v1/namespaces/keda/services/keda-add-ons-http-interceptor-proxy"
SCALER = "/api/v1/namespaces/keda/services/keda-add-ons-http-external-scaler"
INTERCEPTOR = "/apis/apps/v1/namespaces/keda/deployments/keda-add-ons-http-interceptor"

Objects = dict[str, Any]
Change = Callable[[Objects], None]


def ready_cluster() -> Objects:
    """Return a cluster in which every overlay can be applied."""
    namespace = {"metadata": {"labels": {"app.kubernetes.io/version": "1.23.0"}}}
    objects: Objects = {
        "/version": {"major": "1", "minor": "36+"},
        KNATIVE: namespace,
        "/api/v1/namespaces/kourier-system": {"metadata": {}},
        "/api/v1/namespaces/superres": {"metadata": {}},
        "/api/v1/namespaces/kourier-system/services/kourier": {
            "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
        },
        f"{CONFIG}/config-features": {"data": {"_example": "text", **FLAG_ENTRIES}},
        f"{CONFIG}/config-network": {
            "data": {"ingress-class": "kourier.ingress.networking.knative.dev", "external-domain-tls": "Enabled"}
        },
        f"{CONFIG}/config-kourier": {"data": {"use-remote-address": "true"}},
        f"{CONFIG}/config-domain": {"data": {"example.org": ""}},
        **_keda(),
        "/api/v1/nodes": {
            "metadata": {},
            "items": [{"metadata": {"labels": GPU_LABEL}, "status": {"allocatable": {"nvidia.com/gpu": "1"}}}],
        },
        "/apis/storage.k8s.io/v1/storageclasses": {
            "metadata": {},
            "items": [{"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}],
        },
    }
    for name in SECRETS:
        objects[f"/api/v1/namespaces/superres/secrets/{name}"] = {"data": {"latest": "c2VjcmV0LXZhbHVl"}}
    return objects


class StoredCluster:
    """Serves objects by API path, without kubectl, which takes 0.1 s for each."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    def read(self, *path: str) -> Manifest | None:
        found: Manifest | None = self.objects.get("/" + "/".join(path))
        return found

    def read_items(self, *path: str) -> list[Manifest]:
        return list((self.read(*path) or {})["items"])


def _keda() -> Objects:
    """Return what KEDA and its HTTP add-on install, and a namespace with an ingress controller."""
    version = {"app.kubernetes.io/version": "1.0.0"}
    pods = {"app.kubernetes.io/component": "interceptor", "app.kubernetes.io/part-of": "keda-add-ons-http"}
    ingress = {"metadata": {"name": "ingress", "labels": {"superres/ingress": "allowed"}}}
    return {
        "/api/v1/namespaces": {"metadata": {}, "items": [{"metadata": {"name": "keda"}}, ingress]},
        "/api/v1/namespaces/keda": {"metadata": {}},
        f"{DEFINITIONS}/scaledobjects.keda.sh": {"spec": {"versions": [{"name": "v1alpha1", "served": True}]}},
        f"{DEFINITIONS}/interceptorroutes.http.keda.sh": {"spec": {"versions": [{"name": "v1beta1", "served": True}]}},
        PROXY: {"spec": {"ports": [{"port": 8080}]}},
        SCALER: {"spec": {"ports": [{"port": 9090}]}},
        INTERCEPTOR: {
            "metadata": {"labels": version},
            "spec": {"template": {"metadata": {"labels": {**pods, **version}}}},
        },
    }


def without(path: str) -> Change:
    return lambda objects: objects.pop(path)


def with_data(name: str, **entries: str) -> Change:
    return lambda objects: objects.__setitem__(f"{CONFIG}/{name}", {"data": entries})


def with_object(path: str, value: Any) -> Change:
    return lambda objects: objects.__setitem__(path, value)
