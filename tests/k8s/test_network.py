"""Hidden means hidden: a table of who may reach whom, answered by the policies that the overlays really render."""

from __future__ import annotations

import copy

import pytest

from tests.k8s.manifests import CLUSTER_OVERLAYS, render
from tests.k8s.network_policies import Pod, Policy, may_reach

BACKEND = Pod("superres", {"app.kubernetes.io/component": "backend"})
GATEWAY = Pod("superres", {"app.kubernetes.io/component": "gateway"})
REDIS = Pod("superres", {"app.kubernetes.io/component": "redis"})
NEIGHBOUR = Pod("superres", {"app": "something-else"})
STRANGER = Pod(
    "shop", {"app.kubernetes.io/component": "gateway"}
)  # the same label in another namespace is another identity
ACTIVATOR = Pod("knative-serving", {"app": "activator"})
AUTOSCALER = Pod("knative-serving", {"app": "autoscaler"})
CONTROLLER = Pod("knative-serving", {"app": "controller"})
NET_KOURIER = Pod("knative-serving", {"app": "net-kourier-controller"})
KOURIER = Pod("kourier-system", {"app": "3scale-kourier-gateway"})
PROMETHEUS = Pod("monitoring", {"app.kubernetes.io/name": "prometheus"})
GRAFANA = Pod("monitoring", {"app.kubernetes.io/name": "grafana"})
DNS = Pod("kube-system", {"k8s-app": "kube-dns"})
OUTSIDE = Pod("the-internet")

EVERYONE_ELSE = (NEIGHBOUR, STRANGER, CONTROLLER, KOURIER, GRAFANA, OUTSIDE, REDIS, GATEWAY)
BACKEND_PORTS = (8000, 8001, 8002, 8008, 8012, 8013, 8022, 8112, 9090, 9091)

ALLOWED = [
    (ACTIVATOR, BACKEND, 8012),
    (ACTIVATOR, BACKEND, 8013),
    (AUTOSCALER, BACKEND, 9090),
    (PROMETHEUS, BACKEND, 8002),
    (ACTIVATOR, GATEWAY, 8012),
    (AUTOSCALER, GATEWAY, 9090),
    (PROMETHEUS, GATEWAY, 9095),
    (GATEWAY, KOURIER, 8081),
    (KOURIER, ACTIVATOR, 8012),
    (KOURIER, ACTIVATOR, 8013),
    (AUTOSCALER, ACTIVATOR, 8012),
    (NET_KOURIER, KOURIER, 8081),
    (NET_KOURIER, KOURIER, 8090),
    (OUTSIDE, KOURIER, 8080),
    (OUTSIDE, KOURIER, 8443),
    (PROMETHEUS, KOURIER, 9000),
]
REFUSED = [
    *((source, BACKEND, port) for source in EVERYONE_ELSE for port in BACKEND_PORTS),
    *((ACTIVATOR, BACKEND, port) for port in (8000, 8001, 8002, 8022)),  # not around the queue-proxy
    *(
        (BACKEND, target, port)
        for target in (OUTSIDE, GATEWAY, REDIS, KOURIER, ACTIVATOR)
        for port in (80, 443, 6379, 8081)
    ),
    *((source, KOURIER, 8081) for source in (NEIGHBOUR, STRANGER, OUTSIDE, GRAFANA, REDIS)),  # the door to the backend
    *((source, ACTIVATOR, port) for source in (NEIGHBOUR, STRANGER, GATEWAY, OUTSIDE) for port in (8012, 8013)),
    *((source, GATEWAY, port) for source in (STRANGER, NEIGHBOUR, OUTSIDE, GRAFANA) for port in (8012, 8080, 9095)),
    *((GATEWAY, target, port) for target in (OUTSIDE, BACKEND) for port in (80, 443, 8001, 8012)),
    (GATEWAY, KOURIER, 8080),
    (STRANGER, NEIGHBOUR, 8080),  # a pod of the namespace that nobody wrote a policy for
]


def policies_of(overlay: str) -> list[Policy]:
    return [manifest for manifest in render(f"overlays/{overlay}") if manifest["kind"] == "NetworkPolicy"]


@pytest.mark.parametrize("overlay", CLUSTER_OVERLAYS)
def test_the_path_from_visitor_to_backend_is_open(overlay: str) -> None:
    policies = policies_of(overlay)
    closed = [row for row in ALLOWED if not may_reach(*row, policies)]
    assert not closed, f"k8s/overlays/{overlay} closes: {closed}"


@pytest.mark.parametrize("overlay", CLUSTER_OVERLAYS)
def test_nothing_but_the_gateways_identity_finds_a_way_to_the_backend(overlay: str) -> None:
    policies = policies_of(overlay)
    open_ = [row for row in REFUSED if may_reach(*row, policies)]
    assert not open_, f"k8s/overlays/{overlay} opens: {open_}"


@pytest.mark.parametrize("overlay", CLUSTER_OVERLAYS)
def test_everyone_may_look_names_up_and_the_backend_nothing_else(overlay: str) -> None:
    policies = policies_of(overlay)
    for pod in (BACKEND, GATEWAY, NEIGHBOUR):
        assert may_reach(pod, DNS, 53, policies, "UDP")
        assert may_reach(pod, DNS, 53, policies, "TCP")
        assert not may_reach(pod, DNS, 443, policies)


@pytest.mark.parametrize("overlay", CLUSTER_OVERLAYS)
def test_only_gateways_reach_redis(overlay: str) -> None:
    policies = policies_of(overlay)
    assert may_reach(GATEWAY, REDIS, 6379, policies)
    assert not any(may_reach(pod, REDIS, 6379, policies) for pod in (BACKEND, NEIGHBOUR, STRANGER, PROMETHEUS))
    assert not may_reach(REDIS, GATEWAY, 8012, policies)


@pytest.mark.parametrize("removed", ["deny-all", "backend", "superres-kourier", "superres-activator"])
def test_without_any_one_of_its_policies_the_table_no_longer_holds(removed: str) -> None:
    """The counter-examples: each policy is needed by some row, so the evaluator does tell them apart."""
    rest = [policy for policy in policies_of("gpu") if policy["metadata"]["name"] != removed]
    assert len(rest) == len(policies_of("gpu")) - 1
    held = all(may_reach(*row, rest) for row in ALLOWED) and not any(may_reach(*row, rest) for row in REFUSED)
    assert not held


def test_a_policy_opened_by_mistake_is_seen() -> None:
    policies = copy.deepcopy(policies_of("gpu"))
    backend = next(policy for policy in policies if policy["metadata"]["name"] == "backend")
    backend["spec"]["ingress"].append(
        {"from": [{"namespaceSelector": {}}], "ports": [{"port": 8013, "protocol": "TCP"}]}
    )
    assert may_reach(STRANGER, BACKEND, 8013, policies)
