"""The complete table of allowed connections between pods, evaluated with the policies that the overlays render.

Egress and ingress are evaluated separately, so that one cannot hide an error of the other. Every connection that is
not listed is denied, also for pods that differ from an allowed one only in namespace or labels.
"""

from __future__ import annotations

import copy

import pytest

from testing.k8s.connection_table import ConnectionTable, spoil
from testing.k8s.manifests import CLUSTER_OVERLAYS, render
from testing.k8s.network_policies import PodSelector, Policy, may_reach

COMPONENT, NAME = "app.kubernetes.io/component", "app.kubernetes.io/name"
OURS = {
    **{name: PodSelector("superres", {COMPONENT: name}) for name in ("backend", "gateway", "redis")},
    "neighbour": PodSelector("superres", {"app": "something-else"}),  # a pod without any policy
}
CLUSTERS = {
    "activator": PodSelector("knative-serving", {"app": "activator"}),
    "autoscaler": PodSelector("knative-serving", {"app": "autoscaler"}),
    "net-kourier": PodSelector("knative-serving", {"app": "net-kourier-controller"}),
    "kourier": PodSelector("kourier-system", {"app": "3scale-kourier-gateway"}),
    "prometheus": PodSelector("monitoring", {NAME: "prometheus"}),
    "dns": PodSelector("kube-system", {"k8s-app": "kube-dns"}),
}
# The right labels in another namespace, or other labels in the right namespace, make a different pod.
LOOKALIKES = {
    **{f"{name} of shop": PodSelector("shop", pod.labels) for name, pod in {**OURS, **CLUSTERS}.items()},
    "webhook": PodSelector("knative-serving", {"app": "webhook"}),
    "kourier's other": PodSelector("kourier-system", {"app": "other"}),
    "grafana": PodSelector("monitoring", {NAME: "grafana"}),
    "metrics-server": PodSelector("kube-system", {"k8s-app": "metrics-server"}),
    "the internet": PodSelector("the-internet"),
}
PODS = {**OURS, **CLUSTERS, **LOOKALIKES}
PORTS = (
    53,
    80,
    443,
    6379,
    8000,
    8001,
    8002,
    8008,
    8012,
    8013,
    8022,
    8080,
    8081,
    8090,
    8112,
    8443,
    9000,
    9090,
    9091,
    9095,
    9443,
)
PROBED_PORTS = [*((port, "TCP") for port in PORTS), (53, "UDP"), (8013, "UDP")]

# Pods that accept only the listed connections: all of ours, and the cluster's two restricted gateways.
GUARDED = {*OURS, "activator", "kourier"}
ENTER: dict[tuple[str, str], tuple[int, ...]] = {
    ("activator", "backend"): (8012, 8013),  # never bypassing the queue-proxy
    ("autoscaler", "backend"): (9090,),
    ("prometheus", "backend"): (8002,),
    ("activator", "gateway"): (8012, 8013),
    ("autoscaler", "gateway"): (9090,),
    ("prometheus", "gateway"): (9095,),
    ("gateway", "redis"): (6379,),
    ("kourier", "activator"): (8012, 8013, 8112),
    ("autoscaler", "activator"): (8012, 8013, 8112),
    ("prometheus", "activator"): (9090,),
    **{(name, "kourier"): (8080, 8443) for name in PODS},  # the external listener
    ("gateway", "kourier"): (8080, 8443, 8081),
    ("net-kourier", "kourier"): (8080, 8443, 8081, 8090, 9443),
    ("prometheus", "kourier"): (8080, 8443, 9000),
}
# Targets that our pods may call, in addition to DNS. Other pods may call any target.
LEAVE: dict[tuple[str, str], tuple[int, ...]] = {
    ("gateway", "kourier"): (8081,),
    ("gateway", "redis"): (6379,),
}
# The hops of one request: the ingress gateway twice, with our gateway in between.
WAY = [
    ("the internet", "kourier", 8080),
    ("kourier", "activator", 8012),
    ("activator", "gateway", 8012),
    ("gateway", "kourier", 8081),
    ("kourier", "activator", 8013),
    ("activator", "backend", 8013),
]


def render_policies(overlay: str) -> list[Policy]:
    return [manifest for manifest in render(f"overlays/{overlay}") if manifest["kind"] == "NetworkPolicy"]


TABLE = ConnectionTable(
    pods=PODS,
    ports=tuple(PROBED_PORTS),
    ours=tuple(OURS),
    guarded=tuple(sorted(GUARDED)),
    unguarded=("webhook", "kourier's other"),
    enter=ENTER,
    leave=LEAVE,
)


@pytest.mark.parametrize("overlay", CLUSTER_OVERLAYS)
def test_only_listed_connections_are_allowed(overlay: str) -> None:
    assert list(TABLE.differences(render_policies(overlay))) == []


@pytest.mark.parametrize("overlay", CLUSTER_OVERLAYS)
def test_path_from_client_to_backend_is_open(overlay: str) -> None:
    policies = render_policies(overlay)
    assert all(may_reach(PODS[source], PODS[target], port, policies) for source, target, port in WAY)


SPOILT = dict(spoil(render_policies("gpu")))


@pytest.mark.parametrize("fault", SPOILT)
def test_every_emptied_selector_or_list_is_noticed(fault: str) -> None:
    """The counter-examples: removing any part of a policy changes some connection."""
    assert next(TABLE.differences(SPOILT[fault]), None), f"nobody sees it: {fault}"


@pytest.mark.parametrize("removed", [policy["metadata"]["name"] for policy in render_policies("gpu")])
def test_every_policy_is_needed(removed: str) -> None:
    rest = [policy for policy in render_policies("gpu") if policy["metadata"]["name"] != removed]
    assert next(TABLE.differences(rest), None)


def test_policy_opened_by_mistake_is_seen() -> None:
    policies = copy.deepcopy(render_policies("gpu"))
    backend = next(policy for policy in policies if policy["metadata"]["name"] == "backend")
    backend["spec"]["ingress"].append(
        {"from": [{"namespaceSelector": {}}], "ports": [{"port": 8013, "protocol": "TCP"}]}
    )
    assert "gateway of shop into backend:8013/TCP" in TABLE.differences(policies)
