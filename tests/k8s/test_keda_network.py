"""The complete table of allowed connections between pods in a cluster with KEDA's HTTP add-on instead of Knative."""

from __future__ import annotations

import pytest

from testing.k8s.connection_table import ConnectionTable, spoil
from testing.k8s.manifests import KEDA_OVERLAY, render
from testing.k8s.network_policies import PodSelector, Policy, may_reach

COMPONENT, NAME, PART_OF = (f"app.kubernetes.io/{name}" for name in ("component", "name", "part-of"))
ADD_ON = {PART_OF: "keda-add-ons-http"}
OURS = {
    **{name: PodSelector("superres", {COMPONENT: name}) for name in ("backend", "gateway", "redis")},
    "neighbour": PodSelector("superres", {"app": "something-else"}),  # a pod without any policy
}
CLUSTERS = {
    "ingress": PodSelector("ingress", {NAME: "any"}, {"superres/ingress": "allowed"}),
    "interceptor": PodSelector("keda", {COMPONENT: "interceptor", **ADD_ON}),
    "scaler": PodSelector("keda", {COMPONENT: "scaler", **ADD_ON}),
    "prometheus": PodSelector("monitoring", {NAME: "prometheus"}),
    "dns": PodSelector("kube-system", {"k8s-app": "kube-dns"}),
}
# The right labels in another namespace, or other labels in the right namespace, make a different pod.
LOOKALIKES = {
    **{f"{name} of shop": PodSelector("shop", pod.labels) for name, pod in {**OURS, **CLUSTERS}.items()},
    "refused ingress": PodSelector("other-ingress", {NAME: "any"}, {"superres/ingress": "no"}),
    "keda's operator": PodSelector("keda", {COMPONENT: "operator", **ADD_ON}),
    "other interceptor": PodSelector("keda", {COMPONENT: "interceptor", PART_OF: "another"}),
    "other scaler": PodSelector("keda", {COMPONENT: "scaler", PART_OF: "another"}),
    "grafana": PodSelector("monitoring", {NAME: "grafana"}),
    "metrics-server": PodSelector("kube-system", {"k8s-app": "metrics-server"}),
    "the internet": PodSelector("the-internet"),
}
PODS = {**OURS, **CLUSTERS, **LOOKALIKES}
PORTS = (53, 80, 443, 2223, 6379, 8000, 8001, 8002, 8080, 8443, 9090, 9095)
TABLE = ConnectionTable(
    pods=PODS,
    ports=(*((port, "TCP") for port in PORTS), (53, "UDP"), (8001, "UDP")),
    ours=tuple(OURS),
    guarded=(*sorted(OURS), "interceptor"),
    unguarded=("scaler", "keda's operator", "other interceptor"),
    enter={
        ("interceptor", "backend"): (8001,),
        ("prometheus", "backend"): (8002,),
        ("ingress", "gateway"): (8080,),
        ("prometheus", "gateway"): (9095,),
        ("gateway", "redis"): (6379,),
        ("gateway", "interceptor"): (8080,),
        ("scaler", "interceptor"): (9090,),
        ("prometheus", "interceptor"): (2223,),
    },
    leave={("gateway", "interceptor"): (8080,), ("gateway", "redis"): (6379,)},
)
# The hops of one request.
WAY = [("ingress", "gateway", 8080), ("gateway", "interceptor", 8080), ("interceptor", "backend", 8001)]


def render_policies() -> list[Policy]:
    return [manifest for manifest in render(KEDA_OVERLAY) if manifest["kind"] == "NetworkPolicy"]


def test_only_listed_connections_are_allowed() -> None:
    assert list(TABLE.differences(render_policies())) == []


def test_path_from_the_ingress_to_the_backend_is_open() -> None:
    policies = render_policies()
    assert all(may_reach(PODS[source], PODS[target], port, policies) for source, target, port in WAY)
    assert not may_reach(PODS["gateway"], PODS["backend"], 8001, policies), "the interceptor would not count it"


SPOILT = dict(spoil(render_policies()))


@pytest.mark.parametrize("fault", SPOILT)
def test_every_emptied_selector_or_list_is_noticed(fault: str) -> None:
    """The counter-examples: removing any part of a policy changes some connection."""
    assert next(TABLE.differences(SPOILT[fault]), None), f"nobody sees it: {fault}"


@pytest.mark.parametrize("removed", [policy["metadata"]["name"] for policy in render_policies()])
def test_every_policy_is_needed(removed: str) -> None:
    rest = [policy for policy in render_policies() if policy["metadata"]["name"] != removed]
    assert next(TABLE.differences(rest), None)
